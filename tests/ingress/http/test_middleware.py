import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from ingress.http import middleware
from ingress.http.middleware import REQUESTS, Edge
from ingress.http.problems import install


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = FastAPI()
    install(app)

    @app.get("/boom/{secret}")
    async def boom(secret: str) -> None:
        raise ValueError(secret)

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def body():
            yield b"the beginning"
            raise ValueError("boom")

        return StreamingResponse(body())

    app.add_middleware(Edge, max_body_bytes=1000)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")


def counted(route: str, status: str) -> float:
    value: float = REQUESTS.labels(route, status)._value.get()
    return value


async def test_a_bug_is_answered_like_everything_else(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    before = counted("/boom/{secret}", "500")
    async with client:
        reply = await client.get("/boom/s3cret", headers={"x-request-id": "mine-1"})
    assert reply.status_code == 500
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["x-request-id"] == "mine-1"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-store"
    assert (reply.json()["code"], reply.json()["request_id"]) == ("internal-error", "mine-1")
    assert "s3cret" not in reply.text
    assert counted("/boom/{secret}", "500") == before + 1
    (record,) = [record for record in caplog.records if record.name == "ingress.http.middleware"]
    assert record.exc_info
    assert reply.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


async def test_half_an_answer_is_broken_off(client: httpx.AsyncClient) -> None:
    async with client:
        with pytest.raises(ValueError, match="boom"):  # uvicorn then closes the connection
            await client.get("/half")


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


@pytest.mark.parametrize("stopping", [True, False])
async def test_a_replica_that_stops_ends_its_connections_with_an_answer(stopping: bool) -> None:
    app = FastAPI()
    app.add_middleware(Edge, max_body_bytes=1000, is_stopping=lambda: stopping)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        reply = await client.get("/openapi.json")
    assert (reply.headers.get("connection") == "close") is stopping
