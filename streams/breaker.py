"""Circuit breaker: a provider that only fails is left alone for a while; then one call tries whether it is well.

It opens after so many failures in a row of which the first was a while ago: a moment in which hundreds of calls fail at
once is not enough. What counts is said by `guard`. Each worker has its own and tells it in its heartbeat: one that
cannot reach a provider, alone in that, does not keep the others from it.
"""

import logging
from collections.abc import Callable
from time import monotonic
from typing import Literal

from processors.completion.fall_over import BREAKER_OPEN
from processors.errors import RetryableError
from streams import metrics

logger = logging.getLogger(__name__)

State = Literal["closed", "half-open", "open"]
GAUGE = {"closed": 0, "half-open": 1, "open": 2}
PROBED_S = 1.0  # to ask again in, while another call tries it


class Breaker:
    """Of one provider in one process."""

    def __init__(
        self, provider: str, *, failures: int, after_s: float, cool_down_s: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:  # fmt: skip
        """`failures`: in a row; `after_s`: since the first of them, at least; `cool_down_s`: until one call tries."""
        self._provider, self._most, self._after_s, self._cool_down_s = provider, failures, after_s, cool_down_s
        self._clock = clock
        self._failures = 0
        self._first_at = 0.0
        self._opened_at: float | None = None
        self._is_probed = False
        metrics.BREAKER.labels(provider).set(0)

    @property
    def is_open(self) -> bool:
        """True while not every call may pass."""
        return self._opened_at is not None

    @property
    def state(self) -> State:
        """As it is told; `half-open`: one call may try it, or does."""
        if self._opened_at is None:
            return "closed"
        return "half-open" if self._is_probed or self._left_s() <= 0 else "open"

    def enter(self) -> bool:
        """Before a call; True if it is the one that tries: `good`, `bad` or `neither` must follow.

        Raises:
            RetryableError: `breaker-open`.
        """
        if self._opened_at is None:
            return False
        left_s = self._left_s()
        if left_s > 0 or self._is_probed:
            message = f"{self._provider} has failed again and again and is left alone for a while"
            raise RetryableError(BREAKER_OPEN, message, retry_after_s=max(left_s, PROBED_S))
        self._is_probed = True
        metrics.BREAKER.labels(self._provider).set(GAUGE["half-open"])
        return True

    def good(self) -> None:
        """It has answered a call."""
        self._failures = 0
        if self._opened_at is not None:
            self._opened_at, self._is_probed = None, False
            metrics.BREAKER.labels(self._provider).set(GAUGE["closed"])
            logger.warning("the provider %s answers again", self._provider)

    def bad(self, code: str, *, was_probe: bool) -> None:
        """It has failed a call."""
        if self._opened_at is not None:
            if was_probe:
                self._open()
            return  # begun before it was opened
        now = self._clock()
        if not self._failures:
            self._first_at = now
        self._failures += 1
        if self._failures >= self._most and now - self._first_at >= self._after_s:
            logger.warning(
                "the provider %s has failed %d times in a row, the last with %s: it is left alone for %.0f s",
                self._provider, self._failures, code, self._cool_down_s,
            )  # fmt: skip
            metrics.BREAKER_OPENED.labels(self._provider).inc()
            self._open()

    def neither(self, *, was_probe: bool) -> None:
        """A call has ended without a word about the provider: another one may try it."""
        if was_probe:
            self._is_probed = False

    def _open(self) -> None:
        self._opened_at, self._is_probed, self._failures = self._clock(), False, 0
        metrics.BREAKER.labels(self._provider).set(GAUGE["open"])

    def _left_s(self) -> float:
        return 0.0 if self._opened_at is None else self._opened_at + self._cool_down_s - self._clock()
