"""How Qdrant is called: bounded in time, and the vendor's exceptions end here."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import httpx
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from processors.errors import PermanentError, RetryableError

T = TypeVar("T")
AWAY = "vectors-unavailable"
TOLD_CHARS = 300
MAY_WORK_LATER = frozenset({408, 409, 425, 429})


@contextlib.asynccontextmanager
async def failures(timeout_s: float) -> AsyncIterator[None]:
    """Around one call.

    Raises:
        RetryableError: `vectors-unavailable`: it is away, too slow, or has too much to do.
        PermanentError: `vectors-http-<status>`: it refuses.
        MissingError: The collection is not there.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise RetryableError(AWAY, f"Qdrant did not answer within {timeout_s:.0f} s") from None
    except ResourceExhaustedResponse as error:
        raise RetryableError(AWAY, "Qdrant has too much to do", retry_after_s=error.retry_after_s) from None
    except UnexpectedResponse as error:
        status = error.status_code or 0
        if status == 404:
            raise MissingError from None
        if status in MAY_WORK_LATER or status >= 500:
            raise RetryableError(AWAY, f"Qdrant answers {status}: {_told(error)}") from None
        raise PermanentError(f"vectors-http-{status}", f"Qdrant refuses ({status}): {_told(error)}") from None
    except ResponseHandlingException as error:
        raise RetryableError(AWAY, f"Qdrant cannot be reached ({type(error.source).__name__})") from None
    except json.JSONDecodeError:
        raise RetryableError(AWAY, "what answers at QDRANT_URL is not Qdrant, or a proxy before it") from None
    except (httpx.HTTPError, OSError) as error:
        raise RetryableError(AWAY, f"Qdrant cannot be reached ({type(error).__name__})") from None


class MissingError(Exception):
    """There is no such collection."""


def _told(error: UnexpectedResponse) -> str:
    """What the server said, without what it was sent: it quotes no payload."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(error.structured()["status"]["error"])[:TOLD_CHARS]
    return error.reason_phrase[:TOLD_CHARS]


class OwnThread:
    """A thread with a loop, in which coroutines run that do not really wait: Qdrant's local mode computes in them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vectors", daemon=True)
        self._thread.start()

    def call(self, make: Callable[[], T]) -> T:
        """What it returns there; blocks."""

        async def there() -> T:
            return make()

        return asyncio.run_coroutine_threadsafe(there(), self._loop).result()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """One after the other; being cancelled ends what has not begun."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def close(self) -> None:
        """End it, once what runs is done."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def directly(coroutine: Awaitable[T]) -> T:
    """As `OwnThread.run`, where waiting is real."""
    return await coroutine
