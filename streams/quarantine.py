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
        self._wanted = self._found = 0
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
    async def alone(self, *, wanted: Callable[[], bool], is_found: bool = False) -> AsyncIterator[None]:
        """Nothing else is in hand inside.

        Args:
            wanted: False ends the waiting for that, when there is nothing to do.
            is_found: It goes before those that are only suspected: they may not be, once it is out of the way.
        """
        self._wanted += 1
        self._found += is_found
        self._calm.clear()
        try:
            await self._turn(is_found=is_found)
            try:
                while wanted() and any(stage.is_busy for stage in self._stages):
                    await asyncio.sleep(TICK_S)
                yield
            finally:
                self._one.release()
        finally:
            self._wanted -= 1
            self._found -= is_found
            if not self._wanted:
                self._calm.set()

    async def _turn(self, *, is_found: bool) -> None:
        await self._one.acquire()
        while self._found and not is_found:  # to the end of those who wait, in the same order
            self._one.release()
            await asyncio.sleep(0)
            await self._one.acquire()
