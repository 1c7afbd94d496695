import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from ingress.middleware import REQUESTS, Edge
from ingress.problems import install


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
    (record,) = [record for record in caplog.records if record.name == "ingress.middleware"]
    assert "mine-1" in record.getMessage()
    assert record.exc_info


async def test_half_an_answer_is_broken_off(client: httpx.AsyncClient) -> None:
    async with client:
        with pytest.raises(ValueError, match="boom"):  # uvicorn then closes the connection
            await client.get("/half")
