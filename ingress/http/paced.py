"""Answers without an end in sight: sent at their reader's pace, and not for ever."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from time import monotonic

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ingress.http.bounded_http import abort
from ingress.services import until_revoked
from processors.errors import RetryableError

logger = logging.getLogger(__name__)


class PacedResponse(Response):
    """A body in chunks, each made when the one before it was taken.

    It is cut, so that its reader sees that there is more, when the reader has left, takes nothing for `stall_s`, has
    been at it for `longest_s`, may read no more, when `is_stopping`, or when a chunk cannot be made.
    """

    def __init__(
        self, chunks: AsyncIterator[bytes], *, media_type: str, headers: Mapping[str, str], stall_s: float,
        longest_s: float, is_stopping: Callable[[], bool], at_the_end: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """`at_the_end`: called once, however it ends."""
        super().__init__(media_type=media_type, headers=dict(headers))
        del self.headers["content-length"]
        self._chunks, self._stall_s, self._longest_s = chunks, stall_s, longest_s
        self._is_stopping, self._at_the_end = is_stopping, at_the_end
        self._is_revoked = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            with until_revoked(scope, self._revoke):
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and (why := sending.result()) is not None:
                logger.warning("an answer was cut: %s", why)
                abort(scope)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            self._at_the_end()

    def _revoke(self) -> None:
        self._is_revoked = True

    async def _send(self, send: Send) -> str | None:
        """Why it was cut; None: it was not."""
        began = monotonic()
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with aclosing(self._chunks) as chunks:  # type: ignore[type-var]  # they come from generators
                async for chunk in chunks:
                    async with asyncio.timeout(self._stall_s):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    if self._is_revoked:
                        return "what it was asked for with is no longer good"
                    if self._is_stopping():
                        return "this replica is stopping"
                    if monotonic() - began > self._longest_s:
                        return f"it took longer than {self._longest_s:.0f} s"
        except TimeoutError:
            return f"its reader took nothing for {self._stall_s:.0f} s"
        except RetryableError as error:
            return error.message
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return None


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
