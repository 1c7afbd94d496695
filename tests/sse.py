"""A client of server-sent events that can be cut anywhere and goes on with `Last-Event-ID`, as browsers do."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import httpx


class Sse:
    """What one client knows of an answer, over as many connections as it takes.

    `text`: since the last restart; `last_id`: to go on from; `body`: of the end, None before.
    """

    def __init__(self) -> None:
        self.text, self.last_id, self.names = "", "", list[str]()
        self.body: Any = None
        self.job_id: str | None = None
        self.headers: dict[str, str] = {}
        self.connections = 0

    async def listen(
        self, client: httpx.AsyncClient, url: str | None = None, *, ask: dict[str, Any] | None = None,
        until: Callable[[], bool] = lambda: False, cut_after_bytes: int | None = None,
    ) -> "Sse":  # fmt: skip
        """One connection: to a job's stream, or asking for a new one; until the end, a condition, or so many bytes."""
        sent = {"last-event-id": self.last_id} if self.last_id else {}
        method, path = ("POST", url or "/chat/") if ask else ("GET", url or f"/jobs/{self.job_id}/stream")
        left, rest = cut_after_bytes, b""
        self.connections += 1
        with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):  # the other side cut it
            async with client.stream(method, path, headers=sent, json=ask) as reply:
                if reply.status_code != 200:
                    await reply.aread()
                assert reply.status_code == 200, reply.text
                assert reply.headers["content-type"].startswith("text/event-stream")
                self.headers = dict(reply.headers)
                self.job_id = reply.headers["location"].rpartition("/")[2]
                async for part in reply.aiter_raw():
                    taken = part if left is None else part[:left]
                    *blocks, rest = (rest + taken).split(b"\n\n")
                    for block in blocks:
                        self._take(block.decode())
                    if left is not None:
                        left -= len(taken)
                    if self.body is not None or until() or left == 0:
                        break
        return self

    async def to_the_end(self, *clients: httpx.AsyncClient) -> "Sse":
        """Again and again, at one replica after the other."""
        async with asyncio.timeout(90):
            while self.body is None:
                await self.listen(clients[self.connections % len(clients)])
        return self

    def _take(self, block: str) -> None:
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.last_id = fields.get("id", self.last_id)
        if (name := fields.get("event")) is None:
            return
        data = json.loads(fields["data"])
        self.names.append(name)
        if name == "delta":
            self.text += data["text"]
        elif name == "restart":
            self.text = ""
        elif name in ("finished", "error"):
            self.body = data
