"""Questions to Postgres that are asked at the same time, as one: with many runs at once it has a tenth of them."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from processors.errors import PermanentError

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")
R = TypeVar("R")

AT_ONCE = 100


class Together(Generic[K, A, R]):
    """Asks at once where nothing is under way; what comes meanwhile waits, and goes together.

    No two with one key are in one question. One that is refused is refused by itself, whatever it was asked with.
    """

    def __init__(self, ask: Callable[[Sequence[tuple[K, A]]], Awaitable[Mapping[K, R]]]) -> None:
        """`ask`: called with at most 100, sorted by their keys; may leave out those of which there is nothing."""
        self._ask = ask
        self._waiting: deque[tuple[K, A, asyncio.Future[R | None]]] = deque()
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, key: K, what: A) -> R | None:
        """What is said of it; None where nothing is. Raises as the question did."""
        answer: asyncio.Future[R | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, what, answer))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all(), name="questions to Postgres")
        return await answer

    async def _ask_all(self) -> None:
        try:
            while taken := self._take():
                try:
                    await self._answered(taken)
                except PermanentError:
                    for one in taken:
                        await self._alone(one)
        finally:
            self._asking = None

    def _take(self) -> "list[tuple[K, A, asyncio.Future[R | None]]]":
        taken: dict[K, tuple[K, A, asyncio.Future[R | None]]] = {}
        left: deque[tuple[K, A, asyncio.Future[R | None]]] = deque()
        while self._waiting and len(taken) < AT_ONCE:
            one = self._waiting.popleft()
            if one[2].done():  # who asked has gone
                continue
            if one[0] in taken:
                left.append(one)
            else:
                taken[one[0]] = one
        self._waiting.extendleft(reversed(left))
        # In one order, whoever asks: two processes that write the same rows do not wait for each other.
        return sorted(taken.values(), key=lambda one: str(one[0]))

    async def _answered(self, taken: "Sequence[tuple[K, A, asyncio.Future[R | None]]]") -> None:
        """Raises PermanentError where there is more than one, of which one may be at fault."""
        try:
            found = await self._ask([(key, what) for key, what, _ in taken])
        except Exception as error:
            if isinstance(error, PermanentError) and len(taken) > 1:
                raise
            for _, _, answer in taken:
                if not answer.done():
                    answer.set_exception(error)
            return
        for key, _, answer in taken:
            if not answer.done():
                answer.set_result(found.get(key))

    async def _alone(self, one: "tuple[K, A, asyncio.Future[R | None]]") -> None:
        if not one[2].done():
            await self._answered([one])
