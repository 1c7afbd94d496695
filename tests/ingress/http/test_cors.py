import httpx
import pytest
from fastapi import FastAPI

from ingress.http.cors import install_cors
from ingress.http.middleware import Edge
from settings import Settings

OURS, THEIRS = "https://app.example", "https://evil.example"


def client(*origins: str) -> httpx.AsyncClient:
    app = FastAPI()

    @app.get("/jobs")
    async def jobs() -> dict[str, str]:
        return {"said": "yes"}

    install_cors(app, origins)
    app.add_middleware(Edge, max_body_bytes=1000)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")


def asked(origin: str) -> dict[str, str]:
    return {"origin": origin, "access-control-request-method": "GET", "access-control-request-headers": "authorization"}


def about_cors(reply: httpx.Response) -> set[str]:
    return {name for name in reply.headers if name.startswith("access-control")}


async def test_without_the_setting_no_page_is_let_in() -> None:
    async with client() as no_origins:
        assert not about_cors(await no_origins.options("/jobs", headers=asked(OURS)))
        assert not about_cors(await no_origins.get("/jobs", headers={"origin": OURS}))


async def test_a_page_that_is_named_is_let_in_with_its_token_and_no_cookie() -> None:
    async with client(OURS) as one_origin:
        reply = await one_origin.options("/jobs", headers=asked(OURS))
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, OURS)
        assert "authorization" in reply.headers["access-control-allow-headers"].lower()
        assert "access-control-allow-credentials" not in reply.headers
        reply = await one_origin.get("/jobs", headers={"origin": OURS})
        assert reply.headers["access-control-allow-origin"] == OURS
        assert "retry-after" in reply.headers["access-control-expose-headers"]


async def test_another_page_is_not() -> None:
    async with client(OURS) as one_origin:
        assert (await one_origin.options("/jobs", headers=asked(THEIRS))).status_code == 400
        reply = await one_origin.get("/jobs", headers={"origin": THEIRS})
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("origin", ["*", "app.example", "https://app.example/", "ftp://app.example", "null", ""])
def test_what_is_no_origin_stops_the_start(origin: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        Settings(_env_file=None, cors_allowed_origins=(origin,))
