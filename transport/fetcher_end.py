"""The end of a consumer's fetching, also where its first cancellation is lost.

aiokafka 0.14: when a consumer has lost its assignment, its fetcher awaits tasks of its own that it has cancelled, and
takes a cancellation of itself that comes meanwhile for theirs. It then waits for an assignment that never comes, and
`stop` for it, for ever. Seen where a reader was stopped just after `unsubscribe`; a rebalance does the same.
"""

import asyncio

from aiokafka.consumer.fetcher import Fetcher

AGAIN_S = 0.1


def install() -> None:
    """Have all consumers of this process end like this. May be called twice."""
    Fetcher.close = _close


_close_once = Fetcher.close


async def _close(self: Fetcher) -> None:
    self._closed = True
    while not self._fetch_task.done():
        self._fetch_task.cancel()
        await asyncio.wait({self._fetch_task}, timeout=AGAIN_S)
    await _close_once(self)
