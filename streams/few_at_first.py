"""Those that a process has died with begin a few at a time."""

import asyncio
from collections.abc import Collection
from typing import Any

FEW = 8
JUST_BEGUN_S = 0.05  # most that kill do so at once
PROVEN_S = 0.2  # after that: 512 that were in hand have all begun in 2.5 s, 200 in 1.5 s


class FewAtFirst:
    """How many of them begin at once: the fewer do, the sooner the one is found that kills the next process."""

    def __init__(self) -> None:
        self._many, self._proving = FEW, False

    def has_room_beside(self, chosen: int) -> bool:
        """True if one more may begin with those that are chosen."""
        return not self._proving and chosen < self._many

    def begin(self) -> None:
        """Those that are chosen begin, and no more until they are proven."""
        self._proving = True

    async def prove(self, tasks: Collection["asyncio.Task[Any]"]) -> None:
        """Return when all are done, or have not killed the process for a while; a few more begin the next time."""
        await asyncio.wait(tasks, timeout=PROVEN_S)
        self._proving = False
        self._many += FEW

    def end(self) -> None:
        """No more of them wait."""
        self._many = FEW
