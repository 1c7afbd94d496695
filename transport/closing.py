"""The end of a client that has done what it was made for."""

import asyncio
import logging
from typing import Protocol

logger = logging.getLogger(__name__)

CLOSE_WITHIN_S = 2.0


class Closable(Protocol):
    """As aiokafka's clients are."""

    async def stop(self) -> None:
        """Close its connections."""


async def close(client: Closable, *, within_s: float = CLOSE_WITHIN_S) -> None:
    """Stop it, but wait no longer than `within_s`.

    A connection over TLS was seen never to say that it is closed (aiokafka 0.14), and a producer waits for brokers that
    are away; what was read or sent is there all the same, and whoever waits for it must not end because of it.
    """
    try:
        async with asyncio.timeout(within_s):
            await client.stop()
    except TimeoutError:
        logger.debug("a client's connections did not close within %g s", within_s)
