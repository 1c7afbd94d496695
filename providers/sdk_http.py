"""The HTTP client that is given to vendors' SDKs, which themselves would read a reply of any size.

It costs about half the CPU of the SDKs' default (it rides on aiohttp). It follows no redirect, and asks for no
compression, so that what is read is what was sent.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import httpx2
from openai import DefaultAioHttpClient

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 4.0  # llama.cpp and uvicorn end an idle connection after 5, and a call that meets that is lost
READ_TIMEOUT_S = 130.0  # longer than any call's own time
MAX_REPLY_BYTES = 8 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024  # of a reply that is an error: the rest of it is not missed

_parsed = lru_cache(maxsize=64)(httpx2.URL)
_open_replies: ContextVar[list[httpx2.Response] | None] = ContextVar("open_replies", default=None)


class ReplyTooLargeError(Exception):
    """A reply was larger than what is read of one."""


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, *, most: int, quietly: bool) -> None:
        self._stream, self._most, self._quietly = stream, most, quietly

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most
        async for piece in self._stream:
            left -= len(piece)
            if left < 0:
                if self._quietly:
                    return
                raise ReplyTooLargeError
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


class SdkClient(DefaultAioHttpClient):
    """Of a reply, it reads `MAX_REPLY_BYTES` and then raises `ReplyTooLargeError`; of an error, `MAX_ERROR_BYTES`."""

    def build_request(
        self, method: str, url: httpx2.URL | str, *, content: Any = None, headers: Any = None, timeout: Any = None,
        **more: Any,
    ) -> httpx2.Request:  # fmt: skip
        """As its base class; what has a body and nothing else is sent as the SDK hands it over.

        Merging it with what the client itself has costs a quarter of a call.
        """
        if content is None or any(more.values()):
            return super().build_request(method, url, content=content, headers=headers, timeout=timeout, **more)
        extensions = {"timeout": httpx2.Timeout(timeout).as_dict()}
        return httpx2.Request(method, _parsed(str(url)), content=content, headers=headers, extensions=extensions)

    async def send(self, request: httpx2.Request, *, stream: bool = False, **more: Any) -> httpx2.Response:
        """As its base class, bounded."""
        timeout = request.extensions.get("timeout", {})
        connect = min(timeout.get("connect") or CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S)
        request.extensions = {**request.extensions, "timeout": {**timeout, "connect": connect}}
        request.headers["accept-encoding"] = "identity"
        response = await super().send(request, stream=True, **more)
        if (replies := _open_replies.get()) is not None:
            replies.append(response)
        is_error = response.status_code >= 300
        most = MAX_ERROR_BYTES if is_error else MAX_REPLY_BYTES
        if response.headers.pop("content-encoding", "identity") != "identity":
            most = 0  # unpacked it may be a thousand times as large
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(response.stream, most=most, quietly=is_error)
        if not stream:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response


@asynccontextmanager
async def replies_closed() -> AsyncIterator[None]:
    """Within it, no reply outlives the block: an SDK that hands on a generator closes it some time later."""
    replies: list[httpx2.Response] = []
    token = _open_replies.set(replies)
    try:
        yield
    finally:
        _open_replies.reset(token)
        for response in replies:
            await response.aclose()


def make_sdk_client(*, base_url: str, connections: int, trust_env: bool) -> SdkClient:
    """A client.

    Args:
        base_url: Where it will go. On this machine, no proxy is asked.
        connections: How many at most; more callers wait.
        trust_env: Proxies of the environment are used, as operators of closed networks expect.
    """
    on_this_machine = urlsplit(base_url).hostname in ("127.0.0.1", "::1", "localhost")
    return SdkClient(
        limits=httpx2.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEPALIVE_S
        ),
        timeout=httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=READ_TIMEOUT_S),
        trust_env=trust_env and not on_this_machine,
        follow_redirects=False,
    )
