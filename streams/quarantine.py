"""Nothing beside a suspect: a record that was in hand when two processes died is handled alone in its process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

TICK_S = 0.01


class Stage(Protocol):
    """What is asked of a lane."""

    @property
    def is_busy(self) -> bool:
        """Something of it has begun and is not finished."""
        ...


class Quarantine:
    """One per process, over all its stages: whoever kills the process while it is alone is known to have done it."""

    def __init__(self) -> None:
        self._stages: list[Stage] = []
        self._wanted: list[int] = []
        self._calm = asyncio.Event()
        self._calm.set()
        self._one = asyncio.Lock()

    def watch(self, stage: Stage) -> None:
        """A stage that begins nothing unless it is `calm`."""
        self._stages.append(stage)

    @property
    def is_calm(self) -> bool:
        """No suspect is handled or waits for its turn."""
        return self._calm.is_set()

    async def calm(self) -> None:
        """Return once there is no suspect."""
        await self._calm.wait()

    @asynccontextmanager
    async def alone(self, *, wanted: Callable[[], bool], rank: int = 0) -> AsyncIterator[None]:
        """Nothing else is in hand inside.

        Args:
            wanted: False ends the waiting for that, when there is nothing to do.
            rank: Those of a lower one go before: others may not be suspected any more when one of them is found.
        """
        self._wanted.append(rank)
        self._calm.clear()
        try:
            await self._turn(rank)
            try:
                while wanted() and any(stage.is_busy for stage in self._stages):
                    await asyncio.sleep(TICK_S)
                yield
            finally:
                self._one.release()
        finally:
            self._wanted.remove(rank)
            if not self._wanted:
                self._calm.set()

    async def _turn(self, rank: int) -> None:
        await self._one.acquire()
        while min(self._wanted) < rank:  # to the end of those who wait
            self._one.release()
            await asyncio.sleep(0)
            await self._one.acquire()
