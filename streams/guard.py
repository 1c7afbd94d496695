"""What stands between the jobs of a worker and one provider: its breaker, and its pace.

| how a call ended | the breaker | the pace |
|---|---|---|
| an answer | closes | |
| `provider-unreachable`, `provider-http-5xx` | counts it | |
| without a word for `SILENT_S`, and then cut | counts it, whoever cut it | |
| 429 | no failure; as the call that tries it, it closes it | is set back |
| any other refusal | the same | |
| cut earlier, or while text came; a bug | says nothing | |

So nobody can open it for others by asking for what is refused, or by short timeouts.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from types import TracebackType

from processors.completion.fall_over import TIMEOUT, error_class
from processors.errors import PermanentError, RetryableError
from processors.ports import Execution
from streams import metrics
from streams.breaker import Breaker
from streams.pace import Pace

SILENT_S = 10.0
SLOW_DOWN = "provider-http-429"


class ProviderGuard:
    """See `Guard`. `begin` and `turn` are asked before a call, `calling` is around it."""

    def __init__(self, provider: str, breaker: Breaker, pace: Pace, *, clock: Callable[[], float] = monotonic) -> None:
        self.provider, self.breaker, self.pace, self.clock = provider, breaker, pace, clock

    def begin(self) -> float:
        """0: a job may be begun now, and has its place; else in how many seconds to ask again.

        One that will not be asked is begun at once: its job goes elsewhere, or is put off.
        """
        return 0.0 if self.breaker.is_open else self.pace.begin()

    async def turn(self, most_s: float) -> bool:
        """Wait for the place of another try; False where it takes longer."""
        return self.breaker.is_open or await self.pace.turn(most_s)

    def calling(self, execution: Execution) -> "_Call":
        """See `Guard.calling`."""
        return _Call(self, execution)

    def failed(self, error: BaseException, *, was_probe: bool, was_silent: bool) -> None:
        """A call has ended without an answer. `was_silent`: without a word for long."""
        code = error.code if isinstance(error, RetryableError | PermanentError) else None
        if isinstance(error, asyncio.CancelledError) or code == TIMEOUT:
            is_bad, code = was_silent, TIMEOUT
        else:
            is_bad = code is not None and error_class(code) in ("unreachable", "http-5xx")
        if code == SLOW_DOWN and isinstance(error, RetryableError):
            metrics.SLOWED.labels(self.provider).inc()
            self.pace.set_back(error.retry_after_s)
        if is_bad and code is not None:
            self.breaker.bad(code, was_probe=was_probe)
        elif was_probe and code not in (None, TIMEOUT):
            self.breaker.good()  # it refuses this call, but it is there
        else:
            self.breaker.neither(was_probe=was_probe)


class _Call:
    """Around one call; a class, for a generator costs more."""

    __slots__ = ("_began", "_execution", "_guard", "_is_probe")

    def __init__(self, guard: ProviderGuard, execution: Execution) -> None:
        self._guard, self._execution = guard, execution

    def __enter__(self) -> None:
        self._is_probe = self._guard.breaker.enter()
        self._began = self._guard.clock()

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if error is None:
            self._guard.breaker.good()
            return
        lasted_s = self._guard.clock() - self._began
        was_silent = lasted_s >= SILENT_S and not self._execution.has_begun
        self._guard.failed(error, was_probe=self._is_probe, was_silent=was_silent)
