"""HTTP for APIs that need no SDK: bounded, without redirects, proxies and compression; and its failures as ours."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from providers.failures import refused, senseless, too_large, unreachable

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 130.0
MAX_REPLY_BYTES = 8 * 1024 * 1024
EXPLAINED = (400, 413, 422, 500)  # of which the reply says why
EXPLANATION_BYTES = 4096


def make_http_client(*, base_url: str, connections: int) -> httpx.AsyncClient:
    """A client for a server in one's own network: no proxy of the environment is told its prompts.

    Args:
        base_url: Paths are added to it.
        connections: How many at most; more callers wait.
    """
    return httpx.AsyncClient(
        base_url=base_url,
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        headers={"accept-encoding": "identity"},
        trust_env=False,
        follow_redirects=False,
    )


async def _beginning(response: httpx.Response) -> str:
    """Of a reply that is an error: as much as tells what is wrong; what does not come is not missed."""
    body = b""
    with contextlib.suppress(httpx.HTTPError, httpx.StreamError, OSError):
        async for piece in response.aiter_raw():
            body += piece
            if len(body) >= EXPLANATION_BYTES:
                break
    return body[:EXPLANATION_BYTES].decode(errors="replace")


@asynccontextmanager
async def asked(
    client: httpx.AsyncClient, name: str, method: str, path: str, *, timeout_s: float, json: Any = None
) -> AsyncIterator[httpx.Response]:
    """Its reply, with status 200 and not read yet; closed at the end of the block, however that comes.

    Raises:
        RetryableError, PermanentError: As `CompletionProvider`, for what goes wrong in the block, too.
    """
    timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s), pool=READ_TIMEOUT_S)
    try:
        async with client.stream(method, path, json=json, timeout=timeout) as response:
            if response.status_code != 200:
                said = (await _beginning(response),) if response.status_code in EXPLAINED else ()
                raise refused(name, response.status_code, response.headers, said=said)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise senseless(name)  # unpacked it may be a thousand times as large
            yield response
    except (httpx.HTTPError, httpx.StreamError, OSError):
        raise unreachable(name) from None


async def pieces(response: httpx.Response, name: str) -> AsyncIterator[bytes]:
    """The body as it comes; PermanentError past its bound."""
    left = MAX_REPLY_BYTES
    async for piece in response.aiter_raw():
        left -= len(piece)
        if left < 0:
            raise too_large(name, MAX_REPLY_BYTES)
        yield piece


async def read(response: httpx.Response, name: str) -> bytes:
    """The whole body; PermanentError past its bound."""
    body = bytearray()
    async for piece in pieces(response, name):
        body += piece
    return bytes(body)
