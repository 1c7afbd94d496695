"""The end of a consumer that has read what it was made for."""

import asyncio
import logging
from typing import Protocol

logger = logging.getLogger(__name__)

CLOSE_WITHIN_S = 2.0


class Closable(Protocol):
    """As aiokafka's consumers are."""

    async def stop(self) -> None:
        """Close its connections."""


async def close(consumer: Closable, *, within_s: float = CLOSE_WITHIN_S) -> None:
    """Stop it, but wait no longer than `within_s`.

    A connection over TLS was seen never to say that it is closed (aiokafka 0.14); what was read is there all the same,
    and whoever waits for it must not end because of it.
    """
    try:
        async with asyncio.timeout(within_s):
            await consumer.stop()
    except TimeoutError:
        logger.debug("a consumer's connections did not close within %g s", within_s)
