"""What runs beside the stages ends when it is told to, also where a library loses that."""

import asyncio
from contextlib import suppress

import pytest

from streams import ending
from streams.ending import end
from transport import admin
from transport.admin import connected
from transport.clients import KafkaAccess


async def forever() -> None:
    await asyncio.Event().wait()


async def loses_a_cancellation() -> None:
    with suppress(asyncio.CancelledError):
        await forever()
    await forever()


async def closes_without_end() -> None:
    try:
        await forever()
    finally:
        await forever()


@pytest.mark.parametrize("work", [forever, loses_a_cancellation, closes_without_end])
async def test_a_task_that_goes_on_is_cancelled_again(monkeypatch: pytest.MonkeyPatch, work: object) -> None:
    monkeypatch.setattr(ending, "CANCEL_AGAIN_S", 0.01)
    task = asyncio.create_task(work())  # type: ignore[operator]
    await asyncio.sleep(0)
    await asyncio.wait_for(end(task), 20)
    assert task.cancelled()


async def test_what_it_raised_is_raised_and_what_has_ended_is_left() -> None:
    async def fails() -> None:
        raise ValueError("a bug")

    task = asyncio.create_task(fails())
    await asyncio.wait({task})
    with pytest.raises(ValueError, match="a bug"):
        await end(task)


async def test_whoever_waits_for_an_end_may_be_cancelled_themselves() -> None:
    task = asyncio.create_task(closes_without_end())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(end(task))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 20)
    task.cancel()
    await asyncio.wait({task})


async def test_an_admin_client_that_never_closes_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Admin:
        async def start(self) -> None:
            pass

        async def close(self) -> None:
            await forever()

    monkeypatch.setattr(admin, "CLOSE_WITHIN_S", 0.01)
    monkeypatch.setattr(admin, "AIOKafkaAdminClient", lambda **_: Admin())
    async with asyncio.timeout(20), connected(KafkaAccess("nowhere:1")) as found:
        assert isinstance(found, Admin)
