"""Ends a worker that lives and does nothing: a consumer that stopped silently, a loop that no longer turns, or a stop
that comes to no end, as where Kafka is away and a commit waits for it.
"""

import logging
import os
import threading
import time
from collections.abc import Callable

from processors.loops import Loop

logger = logging.getLogger(__name__)

TICK_S = 1.0
EXIT_CODE = 70


class Watchdog(threading.Thread):
    """A thread, since what it watches may hang. Other members of the group then take over."""

    def __init__(
        self,
        *,
        stall_timeout_s: float,
        stalled_for_s: Callable[[], float],
        end: Callable[[int], None] = os._exit,
    ) -> None:
        """`stalled_for_s`: how long records wait although nothing is in hand; 0 where that is not so."""
        super().__init__(name="watchdog", daemon=True)
        self._timeout_s, self._stalled_for_s, self._end = stall_timeout_s, stalled_for_s, end
        self._ticked_at = time.monotonic()
        self._leaves_at: float | None = None
        self._done, self._loop = threading.Event(), Loop("the watchdog")

    def tick(self) -> None:
        """Called by the event loop each second."""
        self._ticked_at = time.monotonic()

    def leave_within(self, seconds: float) -> None:
        """It has been told to stop, and finishes what it has in hand: only that this ends is watched any more."""
        self._leaves_at = time.monotonic() + seconds

    def stop(self) -> None:
        """No more watching."""
        self._done.set()

    def run(self) -> None:
        """Watch."""
        while not self._done.wait(TICK_S):
            if self.check(time.monotonic()):
                self._end(EXIT_CODE)
                return

    def check(self, now: float) -> bool:
        """True if the process should end."""
        if self._leaves_at is not None:
            if now <= self._leaves_at:
                return False
            logger.critical("it does not come to its end: this process ends, and what it had in hand comes again")
            return True
        silent = now - self._ticked_at
        if silent > self._timeout_s:
            logger.critical("the event loop has not turned for %.0f s: this process ends", silent)
            return True
        try:
            stalled = self._stalled_for_s()
        except Exception as bug:  # the loop is watched all the same, and what cannot be told now may be in a second
            self._loop.met(bug)
            return False
        self._loop.went_well()
        if stalled > self._timeout_s:
            logger.critical("records wait and nothing was delivered for %.0f s: this process ends", stalled)
            return True
        return False
