"""Agents' calls out: only to hosts that are named, never further, and never for long."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from processors.errors import PermanentError
from sinks.agent_calls import MAX_REPLY_BYTES, AgentCalls
from sinks.egress import EgressClient
from sinks.egress_targets import Allowed


class Site:
    """Another system. `calls`: what reached it; `elsewhere`: a host that nobody has named."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, bytes, str | None]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.calls.append((request.method, request.path, body, request.headers.get("idempotency-key")))
        if request.path == "/hang":
            await asyncio.sleep(3600)
        if request.path == "/redirect":
            return web.Response(status=302, headers={"location": "/other"})
        if request.path == "/flood":
            return web.Response(text="x" * (MAX_REPLY_BYTES * 4))
        if request.path == "/picture":
            return web.Response(body=b"\x89PNG\x00", content_type="image/png")
        if request.path == "/packed":
            return web.Response(body=b"\x1f\x8b", headers={"content-encoding": "gzip"})
        return web.json_response({"said": "a\x00b"}, status=201)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site, app = Site(), web.Application()
    app.router.add_route("*", "/{rest:.*}", site.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield site
    await runner.cleanup()


@pytest.fixture
async def calls(site: Site) -> AsyncIterator[AgentCalls]:
    allowed = Allowed(hosts=frozenset({"127.0.0.1"}), ports=frozenset({int(site.url.rpartition(":")[2])}))
    calls = AgentCalls(["127.0.0.1"], client=EgressClient(allowed=allowed, timeout_s=0.3), allowed=allowed)
    yield calls
    await calls.close()


async def test_an_answer_is_told_with_its_status_whatever_that_is(site: Site, calls: AgentCalls) -> None:
    reply = await calls.call("POST", site.url + "/x", body=b"{}", headers={"idempotency-key": "k"})
    assert (reply.status_code, reply.is_cut) == (201, False)
    assert reply.content_type.startswith("application/json")
    assert "said" in reply.text
    assert site.calls == [("POST", "/x", b"{}", "k")]


@pytest.mark.parametrize(
    ("path", "code"), [("/hang", "call-failed"), ("/redirect", "call-refused"), ("/packed", "call-refused")]
)
async def test_what_hangs_redirects_or_is_packed_is_no_answer(
    site: Site, calls: AgentCalls, path: str, code: str
) -> None:
    with pytest.raises(PermanentError) as failed:
        await calls.call("GET", site.url + path, body=None, headers={})
    assert failed.value.code == code
    assert [found[1] for found in site.calls] == [path]


async def test_a_flood_is_cut_and_what_is_no_text_is_not_told(site: Site, calls: AgentCalls) -> None:
    flood = await calls.call("GET", site.url + "/flood", body=None, headers={})
    assert (len(flood.text), flood.is_cut) == (MAX_REPLY_BYTES, True)
    picture = await calls.call("GET", site.url + "/picture", body=None, headers={})
    assert picture.text == "[5 bytes of image/png, which is no text]"


@pytest.mark.parametrize(
    "url",
    ["https://example.com/", "https://127.0.0.1.example.com/", "https://8.8.8.8/", "http://localhost/",
     "https://127.0.0.1@example.com/", "http://169.254.169.254/latest/meta-data", "https://[::1]/"],
)  # fmt: skip
async def test_nobody_else_is_called(site: Site, calls: AgentCalls, url: str) -> None:
    with pytest.raises(PermanentError) as failed:
        await calls.call("GET", url, body=None, headers={})
    assert failed.value.code == "call-refused"
    assert not site.calls


async def test_a_named_host_is_not_called_where_its_address_is_not_public() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "10.0.0.1"]

    calls = AgentCalls(["api.example"], client=EgressClient(resolve=resolve), allowed=Allowed())
    with pytest.raises(PermanentError) as failed:
        await calls.call("GET", "https://api.example/", body=None, headers={})
    assert failed.value.code == "call-refused"
    await calls.close()
