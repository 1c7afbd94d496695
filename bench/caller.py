"""A logged-in HTTP client that is cheap enough not to be what is measured: some 40 us of CPU a call, under uvloop."""

import asyncio
import json
import time
from typing import Any
from urllib.parse import urlsplit


class Caller:
    """Calls one ingress over at most `connections` connections, each with one request at a time."""

    def __init__(self, base_url: str, token: str, connections: int) -> None:
        """`token`: sent as a bearer token."""
        address = urlsplit(base_url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._head = f"Host: {address.netloc}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._all:
            connection.close()
        await asyncio.sleep(0)  # the loop closes them in its next turn

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, float]:
        """Status and seconds of one call."""
        began = time.perf_counter()
        status, _ = await self.call("POST", path, json.dumps(body).encode())
        return status, time.perf_counter() - began

    async def call(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of one call.

        Raises:
            ConnectionError: The ingress closed the connection, or its answer has no length.
        """
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        async with self._slots:
            while self._idle and self._idle[-1].is_closed:  # by a server that keeps idle ones for seconds only
                self._idle.pop()
            connection = self._idle.pop() if self._idle else await self._connect()
            answer = await connection.ask(head.encode() + body)
            self._idle.append(connection)  # one that failed is not used again
            return answer

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port)
        self._all.append(connection)
        return connection


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as much of it as our ingress speaks."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    @property
    def is_closed(self) -> bool:
        return bool(self._transport.is_closing())

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        at = self._buffer.find(b"content-length: ", 0, end)
        if at < 0:
            self.connection_lost(ConnectionError("an answer without content-length"))
            return
        size = int(self._buffer[at + 16 : self._buffer.find(b"\r\n", at)])
        if len(self._buffer) < end + 4 + size:
            return
        status, body = int(self._buffer[9:12]), self._buffer[end + 4 : end + 4 + size]
        self._buffer = self._buffer[end + 4 + size :]
        if not self._answer.done():
            self._answer.set_result((status, body))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed by the ingress"))
