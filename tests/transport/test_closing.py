import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

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


@pytest.mark.parametrize("error", [KafkaConnectionError, asyncio.CancelledError])
async def test_what_a_client_raises_at_its_end_is_nobodys_concern(error: type[BaseException]) -> None:
    async def stop() -> None:
        raise error  # a cancellation of its own, which nobody here has asked for

    await close(stop)
