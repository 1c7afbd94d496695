"""Mass badness: a stage whose events nearly all become dead letters stops taking, for then they are hardly to blame.

It stops at more than half of its last 100 events, or at 20 in a row; what is in hand finishes, the rest waits in its
topic. After a cool-down it lets one event through: if that works it goes on, else it waits again.

What counts, and what does not, because whoever asks could then stop a stage for everybody:

| code | counts | because |
|---|---|---|
| `invalid-event` and `not-authorized` at the public entry, `unknown-user`, `user-disabled` | no | anyone may write
  there |
| `invalid-event` elsewhere | yes | only our own stages write there: versions that do not fit each other |
| `provider-http-400`, `-404`, `-413`, `-414`, `-415`, `-422` | no | the provider refused this request, not us |
| `empty-completion`, `output-too-large`, `context-too-long`, `filtered` | no | a prompt can bring them about |
| `provider-unreachable`, `-429`, `-5xx`, `breaker-open` | no | breaker and pace see to it (`guard`), and jobs that have
  another provider must not wait here |
| `images-unsupported`, `no-payload-store`, `postgres-unavailable` | no | prompts without an image do not meet them |
| `expired`, `timeout`, `cancelled` | no | no dead letters, and no sign that the stage works either |
| every other: `provider-http-401`, `provider-invalid-reply`, `unexpected-error`, ... | yes | the key, the other side or
  the code is wrong, whatever is asked |

What does not count is as if it had not been, or bad requests could hide a stage that fails.
"""

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic

from streams import metrics

logger = logging.getLogger(__name__)

RECENT = 100
MAX_IN_A_ROW = 20
COOL_DOWN_S = 30.0
UNCOUNTED = frozenset({
    "unknown-user", "user-disabled", "empty-completion", "output-too-large", "context-too-long", "filtered", "expired",
    "timeout", "cancelled", "provider-unreachable", "breaker-open", "images-unsupported", "no-payload-store",
    "postgres-unavailable",
    *(f"provider-http-{status}" for status in (400, 404, 413, 414, 415, 422, 429, *range(500, 600))),
})  # fmt: skip
UNCOUNTED_AT_ENTRY = UNCOUNTED | {"invalid-event", "not-authorized"}


class BadLuck:
    """Of one stage in one process; a restart begins anew."""

    def __init__(
        self,
        stage: str,
        *,
        at_entry: bool = False,
        cool_down_s: float = COOL_DOWN_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`stage`: as it is told; `at_entry`: its topic is the public one; `cool_down_s`: until one event is tried."""
        self._stage, self._cool_down_s, self._clock = stage, cool_down_s, clock
        self._uncounted = UNCOUNTED_AT_ENTRY if at_entry else UNCOUNTED
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._bad = self._in_a_row = 0
        self._code = ""
        self._told = ""
        self._stopped_at: float | None = None
        self._is_trying = False
        metrics.STOPPED.labels(stage).set(0)

    # --- what came of an event ---

    def good(self) -> None:
        """It has worked."""
        if self._stopped_at is not None:
            if self._is_trying:
                self._resume()
            return  # begun before the stop: no sign of what is now
        self._in_a_row = 0
        self._note(bad=False)

    def bad(self, code: str) -> None:
        """It is a dead letter."""
        if code in self._uncounted:
            return
        self._code = code
        if self._stopped_at is not None:
            if self._is_trying:
                self._stopped_at, self._is_trying = self._clock(), False
            return
        self._in_a_row += 1
        self._note(bad=True)
        if self._in_a_row >= MAX_IN_A_ROW:
            self._stop(f"{self._in_a_row} events in a row were dead letters")
        elif len(self._recent) == RECENT and self._bad > RECENT // 2:
            self._stop(f"{self._bad} of its last {RECENT} events were dead letters")

    def says_nothing(self, code: str) -> bool:
        """True if an end with this code is no sign of how the stage is."""
        return code in self._uncounted

    # --- whether to take more ---

    @property
    def stopped(self) -> bool:
        """Nothing is begun, but for one event after each cool-down."""
        return self._stopped_at is not None

    @property
    def wants_one(self) -> bool:
        """It has stopped, and one event should be tried now."""
        return (
            self._stopped_at is not None
            and not self._is_trying
            and self._clock() - self._stopped_at >= self._cool_down_s
        )

    def may_begin(self) -> bool:
        """Asked before each event; after a True for one that is tried, `tried` must follow when it has ended."""
        if self._stopped_at is None:
            return True
        if not self.wants_one:
            return False
        self._is_trying = True
        return True

    def tried(self) -> None:
        """The one that was tried has ended. Where that said nothing, the next one is tried at once."""
        self._is_trying = False

    @property
    def problem(self) -> str | None:
        """Why it has stopped and what to do, for `/readyz`; None where it has not."""
        if self._stopped_at is None:
            return None
        return (
            f"{self._stage} has stopped taking: {self._told}, the last with {self._code}; the rest waits in its topic. "
            f"Mend what causes it (`assistant dlq list --code {self._code}`): one event is tried every "
            f"{self._cool_down_s:.0f} s, and when it works the stage goes on. Then: `assistant dlq redrive`"
        )

    def _note(self, *, bad: bool) -> None:
        if len(self._recent) == RECENT:
            self._bad -= self._recent[0]
        self._recent.append(bad)
        self._bad += bad

    def _stop(self, told: str) -> None:
        self._stopped_at, self._told = self._clock(), told
        metrics.STOPPED.labels(self._stage).set(1)
        logger.critical("%s", self.problem)

    def _resume(self) -> None:
        self._stopped_at, self._is_trying = None, False
        self._recent.clear()
        self._bad = self._in_a_row = 0
        metrics.STOPPED.labels(self._stage).set(0)
        logger.warning("%s takes again: an event has worked", self._stage)
