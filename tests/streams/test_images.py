"""How many bytes of images are held at once."""

import asyncio
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from processors.errors import PermanentError, RetryableError
from schemas.requests import ImageReference
from sinks.payloads import PayloadStore
from sinks.pool import Pool
from streams.images import Room, StoredImages


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Holder:
    """Takes room in a task of its own, until told to go."""

    def __init__(self, room: Room, size: int) -> None:
        self.has, self.go = False, asyncio.Event()
        self.task = asyncio.create_task(self._hold(room, size))

    async def _hold(self, room: Room, size: int) -> None:
        async with room.taken(size):
            self.has = True
            await self.go.wait()
        self.has = False


async def test_no_more_is_held_than_there_is_room_for_and_in_turn() -> None:
    room = Room(100)
    first, large, small = (Holder(room, size) for size in (60, 80, 10))
    await settle()
    assert [one.has for one in (first, large, small)] == [True, False, False]  # the small one does not pass the large
    first.go.set()
    await settle()
    assert [one.has for one in (first, large, small)] == [False, True, True]
    for one in (large, small):
        one.go.set()
        await one.task
    async with room.taken(500):  # more than there is: it has all of it
        pass
    assert room._free == 100


async def test_whoever_stops_waiting_stands_in_nobodys_way() -> None:
    room = Room(100)
    first, large, small = (Holder(room, size) for size in (60, 80, 10))
    await settle()
    large.task.cancel()
    await settle()
    assert small.has
    first.go.set()
    small.go.set()
    await asyncio.gather(large.task, first.task, small.task, return_exceptions=True)
    before = room.taken(100)
    await before.__aenter__()
    late = Holder(room, 90)
    await settle()
    await before.__aexit__(None, None, None)  # nobody else comes to run
    late.task.cancel()  # it was let in, and does not know it yet
    await asyncio.gather(late.task, return_exceptions=True)
    assert room._free == 100
    assert not room._waiting


async def test_at_random_all_get_in_and_the_bound_holds() -> None:
    room, held, most = Room(50), 0, 0

    async def one(size: int) -> None:
        nonlocal held, most
        async with room.taken(size):
            held += size
            most = max(most, held)
            await asyncio.sleep(0)
            held -= size

    async with asyncio.timeout(10):
        await asyncio.gather(*(one(1 + n * 7 % 50) for n in range(300)))
    assert most <= 50
    assert room._free == 50


async def test_a_worker_without_a_database_says_what_to_set() -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(PermanentError, match="DATABASE_URL") as caught:
            await stack.enter_async_context(
                StoredImages(None).held(ImageReference(payload_id=uuid4()), user_id="alice")
            )
    assert caught.value.code == "no-payload-store"


async def test_while_postgres_is_away_it_is_tried_again() -> None:
    pool = Pool("postgresql://nobody:nothing@127.0.0.1:1/nothing", size=1)
    async with AsyncExitStack() as stack:
        with pytest.raises(RetryableError):
            await stack.enter_async_context(
                StoredImages(PayloadStore(pool)).held(ImageReference(payload_id=uuid4()), user_id="alice")
            )
    await pool.close()
