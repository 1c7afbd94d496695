import asyncio
from typing import Any

import pytest

from ingress import middleware
from ingress.middleware import Edge


async def call(edge: Edge, path: str = "/chat/") -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "path": path, "headers": [], "method": "GET"}
    await asyncio.wait_for(edge(scope, receive, send), 5)
    status: int = sent[0]["status"]
    return status


async def test_no_more_than_so_many_requests_are_under_way_but_health_is_always_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(middleware, "MAX_UNDER_WAY", 3)
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/chat/":
            await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    edge = Edge(app, max_body_bytes=10)
    waiting = [asyncio.create_task(call(edge)) for _ in range(3)]
    await asyncio.sleep(0)
    assert await call(edge) == 503
    assert await call(edge, "/readyz") == 200
    gone = waiting.pop()
    gone.cancel()  # one whose caller left makes room
    await asyncio.gather(gone, return_exceptions=True)
    waiting.append(asyncio.create_task(call(edge)))
    await asyncio.sleep(0)
    assert await call(edge) == 503
    go.set()
    assert await asyncio.gather(*waiting) == [200, 200, 200]
    assert await call(edge) == 200
