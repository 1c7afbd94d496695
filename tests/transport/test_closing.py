import asyncio

from transport.closing import close


class Stuck:
    """A consumer whose connection never says that it is closed."""

    async def stop(self) -> None:
        await asyncio.Event().wait()


async def test_one_that_does_not_close_is_left() -> None:
    async with asyncio.timeout(10):
        await close(Stuck().stop, within_s=0.01)


async def test_whoever_is_cancelled_meanwhile_is_cancelled() -> None:
    task = asyncio.create_task(close(Stuck().stop, within_s=60))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
