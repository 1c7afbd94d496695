"""A consumer that is stopped ends, whatever its fetcher does with a cancellation."""

import asyncio
import contextlib
from types import SimpleNamespace

from aiokafka.consumer.fetcher import Fetcher

from transport import fetcher_end


async def test_a_cancellation_that_was_lost_is_said_again() -> None:
    fetcher_end.install()
    lost = 0

    async def fetch() -> None:
        nonlocal lost
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        lost += 1
        await asyncio.Event().wait()  # for an assignment

    task = asyncio.create_task(fetch())
    await asyncio.sleep(0)
    fetcher = SimpleNamespace(_fetch_task=task, _fetch_waiters=(), _pending_tasks=(), _closed=False)
    async with asyncio.timeout(5):
        await Fetcher.close(fetcher)
    assert (lost, task.cancelled(), fetcher._closed) == (1, True, True)
