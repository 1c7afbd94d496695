"""The end of a client that has done what it was made for."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

logger = logging.getLogger(__name__)

CLOSE_WITHIN_S = 5.0


async def close(closing: Callable[[], Awaitable[Any]], *, within_s: float = CLOSE_WITHIN_S) -> None:
    """Call this, a client's `stop` or `close`, but wait no longer than `within_s`, and raise nothing.

    A connection over TLS was seen never to say that it is closed (aiokafka 0.14), a producer waits for brokers that are
    away, and a consumer raises what its last fetch met there, its own cancellation too. What was read or sent is there
    all the same, and whoever waits for it must not end because of it.
    """
    try:
        async with asyncio.timeout(within_s):
            await closing()
    except TimeoutError:
        logger.debug("a client's connections did not close within %g s", within_s)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
    except Exception as error:
        logger.debug("a client did not close well", exc_info=error)
