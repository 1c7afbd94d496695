"""Those that a process has died with begin a few at a time."""

import asyncio
from collections.abc import Collection
from typing import Any

FIRST_FEW, MOST = 8, 32
PROVEN_S = 0.25  # 512 that were in hand have all begun in 4.25 s


class FewAtFirst:
    """How many of them begin at once: the fewer have begun when the next process dies, the fewer are handled alone."""

    def __init__(self) -> None:
        self._many, self._proving = FIRST_FEW, False

    def has_room_beside(self, chosen: int) -> bool:
        """True if one more may begin with those that are chosen."""
        return not self._proving and chosen < self._many

    def begin(self) -> None:
        """Those that are chosen begin, and no more until they are proven."""
        self._proving = True

    async def prove(self, tasks: Collection["asyncio.Task[Any]"]) -> None:
        """Return when all are done, or have not killed the process for a while."""
        await asyncio.wait(tasks, timeout=PROVEN_S)
        self._proving = False
        self._many = min(2 * self._many, MOST)

    def end(self) -> None:
        """No more of them wait."""
        self._many = FIRST_FEW
