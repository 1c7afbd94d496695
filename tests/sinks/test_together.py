"""Questions that are asked at the same time: which go together, and whose failure is whose."""

import asyncio
from collections.abc import Sequence

import pytest

from processors.errors import PermanentError, RetryableError
from sinks.together import AT_ONCE, Together


class Database:
    """Answers with the double of what is asked, once it is `open`; refuses 13, knows nothing of 0."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.open = asyncio.Event()
        self.error: Exception | None = None
        self.together = Together(self.answer)

    async def answer(self, asked: Sequence[tuple[int, int]]) -> dict[int, int]:
        self.asked.append([what for _, what in asked])
        await self.open.wait()
        if self.error is not None:
            raise self.error
        if any(what == 13 for _, what in asked):
            raise PermanentError("row-refused", "13")
        return {key: what * 2 for key, what in asked if what}

    def ask(self, what: int, *, key: int | None = None) -> "asyncio.Task[int | None]":
        return asyncio.create_task(self.together.ask(what if key is None else key, what))


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_goes_at_once_and_those_that_come_meanwhile_go_together() -> None:
    database = Database()
    asking = [database.ask(7)]
    await turns()
    asking += [database.ask(n) for n in (3, 2, 1, 0)]
    await turns()
    assert database.asked == [[7]]
    database.open.set()
    assert await asyncio.gather(*asking) == [14, 6, 4, 2, None]
    assert database.asked == [[7], [0, 1, 2, 3]]
    assert await database.together.ask(5, 5) == 10


async def test_no_question_has_a_key_twice_nor_more_than_so_many() -> None:
    database = Database()
    database.open.set()
    numbers = range(20, 220)
    asking = [database.ask(n, key=n % 60) for n in numbers]
    async with asyncio.timeout(5):  # one that is lost would be waited for for ever
        assert await asyncio.gather(*asking) == [n * 2 for n in numbers]
    assert all(len(asked) <= AT_ONCE and len({n % 60 for n in asked}) == len(asked) for asked in database.asked)
    assert len(database.asked) <= 4


async def test_what_is_refused_is_refused_alone() -> None:
    database = Database()
    database.open.set()
    asking = [database.ask(n) for n in (1, 13, 2)]
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert (found[0], found[2]) == (2, 4)
    assert isinstance(found[1], PermanentError)


async def test_a_database_that_is_away_is_away_for_all_and_then_there_again() -> None:
    database = Database()
    database.open.set()
    database.error = RetryableError("postgres-unavailable", "away")
    found = await asyncio.gather(*(database.ask(n) for n in (1, 2)), return_exceptions=True)
    assert [type(one) for one in found] == [RetryableError] * 2
    database.error = None
    assert await database.together.ask(1, 1) == 2


async def test_who_goes_away_holds_up_nobody() -> None:
    database = Database()
    asking = [database.ask(n) for n in (1, 2)]
    await turns()
    asking += [database.ask(n) for n in (3, 4)]
    await turns()
    for gone in (asking[0], asking[2]):
        gone.cancel()
    database.open.set()
    assert list(await asyncio.gather(asking[1], asking[3])) == [4, 8]
    assert database.asked == [[1, 2], [4]]
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
