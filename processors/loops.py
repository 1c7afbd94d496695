"""What runs beside the work for as long as its process does. Nobody awaits it, so nobody would hear of its end.

What it may meet it handles itself; a bug in it is counted (`assistant_background_bugs_total`), told once, and it goes
on: at first soon, then after longer and longer waits, for what has just failed may fail again. `end` ends it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import Counter

from processors.errors import PermanentError, RetryableError

logger = logging.getLogger(__name__)

BUGS = Counter("assistant_background_bugs_total", "Bugs in what runs beside the work, which goes on", ["loop"])
FIRST_WAIT_S, MAX_WAIT_S = 1.0, 60.0
CANCEL_AGAIN_S, MOST_CANCELLATIONS = 10.0, 6  # a clean-up has its time to close connections


class Loop:
    """One of them: what it has lately met that nobody had foreseen."""

    def __init__(self, name: str, *, max_wait_s: float = MAX_WAIT_S) -> None:
        """`name`: what it does, for people and as the metric's label, such as `sending webhooks`."""
        self.name, self._max_wait_s = name, max_wait_s
        self._wait_s = 0.0
        self._told: tuple[object, ...] | None = None

    def went_well(self) -> None:
        """A round of it did: the next bug is a new one."""
        self._wait_s, self._told = 0.0, None

    def met(self, bug: Exception) -> float:
        """To be called where the bug was caught; how many seconds to wait before the next round.

        The log has it once: the same in each round would fill a disk.
        """
        BUGS.labels(self.name).inc()
        what = _place(bug)
        if what != self._told:
            self._told = what
            logger.error("a bug in %s, which goes on", self.name, exc_info=bug)
        self._wait_s = min(self._max_wait_s, max(FIRST_WAIT_S, self._wait_s * 2))
        return self._wait_s


async def repeat(
    work: Callable[[], Awaitable[Any]], name: str, *, every_s: float, begins_at_once: bool = True,
    max_wait_s: float = MAX_WAIT_S, level: int = logging.DEBUG,
) -> None:  # fmt: skip
    """Do it now and again, until cancelled; what could not be done in one round is left to the next.

    Args:
        work: One round. Its `RetryableError` and `PermanentError` are told at `level`.
        name: As `Loop` has it.
        every_s: Between two rounds.
        begins_at_once: False: it waits before the first one, too.
        max_wait_s: After a bug.
        level: Of the log.
    """
    loop = Loop(name, max_wait_s=max_wait_s)
    if not begins_at_once:
        await asyncio.sleep(every_s)
    while True:
        wait_s = every_s
        try:
            await work()
            loop.went_well()
        except (RetryableError, PermanentError) as error:
            logger.log(level, "%s waits: %s", name, error.message)
        except Exception as bug:
            wait_s = max(every_s, loop.met(bug))
        await asyncio.sleep(wait_s)


async def end(task: "asyncio.Future[Any]") -> None:
    """Cancel a task, and wait until it has ended; raises what it raised.

    Again, where it goes on: a library may lose a cancellation that meets an answer, or wait without end for its
    connections to close. A worker was seen to stand still so when it was told to stop, just as it looked at topics.
    What still goes on after `MOST_CANCELLATIONS` is told, and left to the end of the process.
    """
    for _ in range(MOST_CANCELLATIONS):
        if task.done():
            break
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_S)
    if not task.done():
        logger.error("%r goes on, however often it is cancelled; it is left to itself", task)
        return
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _place(bug: Exception) -> tuple[object, ...]:
    """Where it happened. Its words are no part of it: they may be others each time."""
    at = bug.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return (type(bug), at.tb_frame.f_code, at.tb_lineno) if at is not None else (type(bug),)
