"""Handlers in a long wait, for which no drain waits."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from streams.batch import Work


class Held:
    """Those of a lane. A drain cancels them: their records are not finished, and come again."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextmanager
    def hold(self, work: Work) -> Iterator[None]:
        """Around the wait of the handler that is at work on it, which is the task that calls."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a handler runs in a task")
        self._tasks.add(task)
        if not work.ledger.live:  # a drain has begun already, and nobody has adopted this
            task.cancel()
        try:
            yield
        finally:
            self._tasks.discard(task)

    def give_back(self) -> None:
        """A drain begins."""
        for task in self._tasks:
            task.cancel()
