"""When a job goes on to its next provider, and how long the one before is waited for.

A request may name several providers. Which failures send it on, by class (`FALLOVER_ON`):

| class | codes | when |
|---|---|---|
| `unreachable` | `provider-unreachable` | after the quick tries |
| `http-429` | `provider-http-429` | after the quick tries; at once where it said how long it wants to be left alone |
| `http-5xx` | `provider-http-5xx` | the same |
| `timeout` | `timeout`, `provider-http-408` | no word came within its share of the time (`FALLOVER_TIME_SHARE`) |
| `context-too-long` | `context-too-long` | at once |
| `filtered` | `filtered` | at once |

`filtered` is a provider's own refusal. What our filter withholds (`answer_policy`) ends the job: nobody else is asked
until something passes.

`breaker-open` and `images-unsupported` always do, at once. The last provider has no next one: there the usual tries
and long waits hold.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from processors.stage import Hop
from schemas.events import Attempt, CompletionRequested

CLASSES = ("unreachable", "http-429", "http-5xx", "timeout", "context-too-long", "filtered")
TIMEOUT, FILTERED, CONTEXT_TOO_LONG, BREAKER_OPEN = "timeout", "filtered", "context-too-long", "breaker-open"
IMAGES_UNSUPPORTED = "images-unsupported"
ALWAYS = {BREAKER_OPEN, IMAGES_UNSUPPORTED}  # classes that nobody switches off: nothing was asked
CLASS_BY_CODE = {
    "provider-unreachable": "unreachable", "provider-http-429": "http-429", "provider-http-408": TIMEOUT,
    TIMEOUT: TIMEOUT, CONTEXT_TOO_LONG: CONTEXT_TOO_LONG, FILTERED: FILTERED, BREAKER_OPEN: BREAKER_OPEN,
    IMAGES_UNSUPPORTED: IMAGES_UNSUPPORTED,
}  # fmt: skip
LEAST_S = 0.05


def error_class(code: str) -> str | None:
    """What kind of failure a code is; None: one that another provider is not asked for."""
    return "http-5xx" if code.startswith("provider-http-5") else CLASS_BY_CODE.get(code)


@dataclass(frozen=True, slots=True)
class Onward:
    """The way of one event to its next provider. `on`, `time_share`: as in `FallOver`."""

    event: CompletionRequested
    provider: str
    on: frozenset[str]
    time_share: float

    def takes(self, code: str) -> bool:
        """True if a failure with this code sends the job on."""
        found = error_class(code)
        return found is not None and (found in self.on or found in ALWAYS)

    def hop(self, code: str, attempts: tuple[Attempt, ...], *, left_s: float) -> Hop | None:
        """The same event for the next provider, with the tries so far and what is left of the job's time."""
        if not self.takes(code):
            return None
        update = {"provider": self.provider, "attempts": attempts, "retry": 0, "left_s": max(left_s, LEAST_S)}
        return Hop(self.event.model_copy(update=update), self.event.provider, code, error_class(code) or code)


@dataclass(frozen=True, slots=True)
class FallOver:
    """How fall-overs are done here.

    Attributes:
        on: The classes that send a job on; empty: nothing does.
        time_share: Of the time that is left, as much as a provider with a next one has for its first word, and for all
            of its quick tries.
        alive: Names of providers that live workers have; empty while nobody knows.
    """

    on: frozenset[str] = frozenset(CLASSES)
    time_share: float = 0.5
    alive: Callable[[], Sequence[str]] = tuple

    def of(self, event: CompletionRequested) -> Onward | None:
        """The way to the event's next provider, past those that no worker has; None where there is none."""
        rest = event.request.providers_after(event.provider)
        if not rest or not self.on:
            return None
        alive = self.alive()
        provider = next((name for name in rest if name in alive), None) if alive else rest[0]
        return Onward(event, provider, self.on, self.time_share) if provider is not None else None

    def patience_s(self, event: CompletionRequested, *, now: datetime) -> float:
        """How long an event with a next provider waits for the first word of this one."""
        until_expiry_s = (event.job.expires_at - now).total_seconds()
        left_s = min(event.work_s, until_expiry_s) if until_expiry_s > 0 else event.work_s  # else a clock is wrong
        return left_s * self.time_share
