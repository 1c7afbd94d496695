"""Whoever makes a call that costs something is told where they stand, whatever comes of it: every route of the app."""

import ast
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi.routing import APIRoute

import ingress
from ingress import agents, jobs
from ingress.access.credentials import Access, Session
from ingress.access.key_ring import PREFIX
from ingress.app import create_app
from ingress.comparisons import compare
from ingress.costing import costing_routes
from ingress.http.openapi import document
from ingress.openai_api.model_names import Models
from ingress.routes import ROUTERS
from processors.errors import RetryableError
from schemas.events import ProviderOffer
from settings import Settings
from sinks.pool import Pool
from tests.conftest import SECRET
from tests.factories import user_updated
from transport.table import CompactedTable

LIMIT, WINDOW_S, FLOOD = 5, 60, 50
APP = create_app(
    Settings(_env_file=None, kafka_bootstrap_servers="nowhere:1", database_url="postgresql://a:b@127.0.0.1:1/c",
             jwt_secret_key=SECRET, rate_limit_user_requests=LIMIT, rate_limit_window=WINDOW_S)
)  # fmt: skip
SERVICES, DOCUMENT = APP.state.services, document(APP)
COSTING = {f"{method} {route.path}" for route in costing_routes(ROUTERS) for method in route.methods or ()}
ALICE = user_updated(user_id="alice")
# Of what changes something, all that costs nothing, and why not.
FREE = {
    "who they are; slowed by failures": {
        "POST /auth/login", "POST /auth/token", "POST /auth/password", "POST /auth/logout-everywhere", "POST /api-keys",
        "DELETE /api-keys/{key_id}", "POST /webhook-secret/rotate",
    },
    "admins at their work": {
        "POST /auth/register", "PATCH /users/{user_id}", "DELETE /users/{user_id}", "POST /admin/dlq/redrive",
        "POST /users/{user_id}/lift-quarantine",
    },
    "it makes less of what there is": {
        "POST /jobs/cancel", "POST /jobs/{job_id}/cancel", "DELETE /jobs/{job_id}",
        "POST /compare/{comparison_id}/cancel", "DELETE /payloads/{payload_id}", "DELETE /documents/{document_id}",
        "DELETE /instruction/examples/{example_id}", "DELETE /instruction/adapters/{name}",
    },
}  # fmt: skip
CHAT = {"model": "openai/m", "messages": [{"role": "user", "content": "x"}]}
LESSON = {"instruction": "Answer.", "output": "Yes."}
PROMPT, QUESTION = {"json": {"prompt": "x"}}, {"json": {"question": "x"}}
# A call of each that is in order. A route that is not here, or that needs nothing, is called without anything.
CALLS: dict[str, dict[str, Any]] = {
    "POST /chat/": PROMPT, "POST /chat/async": PROMPT, "POST /inference/": PROMPT, "POST /tts/": PROMPT,
    "POST /tts/async": PROMPT, "POST /chat/rag": QUESTION, "POST /chat/rag/async": QUESTION,
    "POST /v1/chat/completions": {"json": CHAT}, "POST /v1/embeddings": {"json": {"model": "openai/e", "input": "x"}},
    "POST /compare": {"json": {"prompts": ["x"], "variants": [{}]}},
    "POST /embeddings/search": {"params": {"query": "x"}},
    "GET /search/": {"params": {"q": "x"}}, "POST /chat/smart/run": {"params": {"query": "x"}},
    "POST /payloads": {"files": {"file": b"x"}}, "POST /ingestion/ingest": {"files": {"file": b"x"}},
    "POST /agents/run": {"json": {"goal": "x", "agent_id": "a"}}, "POST /instruction/smart/add": {"json": LESSON},
    "POST /instruction/train": {"json": {"name": "mine"}}, "GET /instruction/examples": {"params": {"format": "jsonl"}},
    "POST /webhooks/redeliver": {"json": {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}},
}  # fmt: skip


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(CompactedTable, "is_running", True)
    monkeypatch.setattr(SERVICES.user_table, "values", {"alice": ALICE})
    monkeypatch.setattr(SERVICES.standings, "_seen", type(SERVICES.standings._seen)())
    offer = ProviderOffer(name="openai", models=("m",), embedding_model="e", healthy=True)
    monkeypatch.setattr(SERVICES, "models", lambda: Models({"openai": [offer]}, allows=lambda _: True))

    async def pending(*_: Any, **__: Any) -> dict[str, Any]:
        return {"status": "pending"}

    for module in (agents, jobs):  # its own, whatever the id
        monkeypatch.setattr(module, "view_of", pending)
    monkeypatch.setattr(compare, "_own", pending)

    async def away(_: Pool) -> None:
        raise RetryableError("postgres-unreachable", "Postgres does not answer")

    monkeypatch.setattr(Pool, "_open", away)
    return str(SERVICES.tokens.issue("alice", role="user", epoch=0))


@pytest.fixture
async def client(token: str) -> AsyncIterator[httpx.AsyncClient]:
    transport, headers = httpx.ASGITransport(APP), {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://ingress", headers=headers) as client:
        yield client


async def call(client: httpx.AsyncClient, route: str, **options: Any) -> httpx.Response:
    method, _, path = route.partition(" ")
    return await client.request(method, re.sub(r"{\w+}", str(uuid4()), path), **options)


def told(reply: httpx.Response) -> tuple[int, int, int]:
    """What is left, until when there is none, and when to come again."""
    assert reply.headers.get_list("ratelimit-policy") == [f'"default";q={LIMIT};w={WINDOW_S}'], reply.text
    (standing,) = reply.headers.get_list("ratelimit")
    found = re.fullmatch(r'"default";r=(\d+);t=(\d+)', standing)
    assert found is not None, standing
    (again,) = reply.headers.get_list("retry-after")
    return int(found[1]), int(found[2]), int(again)


def test_of_every_route_that_changes_something_it_is_said_whether_it_costs() -> None:
    every = {f"{method.upper()} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods}
    of_routers = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    every |= {f"{method} {route.path}" for route in of_routers for method in route.methods or ()}
    free = {route for routes in FREE.values() for route in routes}
    changing = {route for route in every if not route.startswith(("GET ", "HEAD "))}
    assert changing - COSTING == free, "let its endpoint take a CostingUser and count it, or say in FREE why not"
    assert not COSTING & free
    assert CALLS.keys() <= COSTING <= every


@pytest.mark.parametrize("route", sorted(COSTING))
async def test_a_call_that_is_far_too_many_is_refused_and_told_when_to_come_again(
    client: httpx.AsyncClient, route: str
) -> None:
    for _ in range(FLOOD):
        SERVICES.submissions.count(ALICE)
    reply = await call(client, route, **CALLS.get(route, {}))
    assert (reply.status_code, reply.json()["code"]) == (429, "rate-limited"), reply.text
    remaining, until_s, again_s = told(reply)
    assert remaining == 0
    assert 1 <= again_s == until_s <= WINDOW_S
    assert reply.json()["retry_after_s"] == again_s


BROKEN: dict[str, dict[str, Any]] = {
    "no JSON": {"content": b"{", "headers": {"content-type": "application/json"}},
    "another type": {"json": [1]},
    "too deep": {"content": b"[" * 999 + b"]" * 999, "headers": {"content-type": "application/json"}},
    "unknown field": {"json": {"nonsense": 1}, "params": {"k": "none", "format": "none", "top_k": "none"}},
    "packed": {"content": b"x", "headers": {"content-encoding": "gzip"}},
    "too large": {"content": b"x", "headers": {"content-length": str(10**12)}},
}  # fmt: skip


AT_THE_DOOR = {"packed", "too large"}  # before anything else is looked at


@pytest.mark.parametrize("broken", BROKEN)
async def test_an_error_says_where_its_caller_stands(client: httpx.AsyncClient, broken: str) -> None:
    for route in sorted(COSTING):
        reply = await call(client, route, **BROKEN[broken])
        if broken in AT_THE_DOOR or (route in CALLS and route.startswith("POST ")):
            assert 400 <= reply.status_code < 500, (route, reply.text)
        else:  # it takes no body; Postgres is away
            assert reply.status_code in (202, 422, 503), (route, reply.text)
        told(reply)


async def test_strangers_are_told_nothing(client: httpx.AsyncClient) -> None:
    for authorization in ("", "Bearer x", "Bearer " + client.headers["authorization"][7:-2]):
        for route in sorted(COSTING):
            for options in (CALLS.get(route, {}), BROKEN["packed"]):
                headers = options.get("headers", {}) | {"authorization": authorization}
                reply = await call(client, route, **{**options, "headers": headers})
                assert reply.status_code in (401, 415)
                assert not [name for name in reply.headers if name.startswith("ratelimit")]


async def test_a_key_that_lacks_the_scope_is_told_where_it_stands(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def by_key(*_: Any) -> Session:
        return Session(ALICE, frozenset({"read"}), key_id=uuid4())

    monkeypatch.setattr(Access, "_by_key", by_key)
    reply = await client.post("/chat/", json={"prompt": "x"}, headers={"authorization": f"Bearer {PREFIX}x"})
    assert (reply.status_code, reply.json()["code"]) == (403, "scope-missing")
    assert told(reply) == (LIMIT, 0, 0)


async def test_what_costs_nothing_says_nothing_of_it(client: httpx.AsyncClient) -> None:
    for method, path in (("GET", "/jobs"), ("POST", "/api-keys"), ("PUT", "/chat/"), ("GET", "/nowhere")):
        reply = await client.request(method, path, content=b"{")
        assert reply.status_code >= 400
        assert "ratelimit" not in reply.headers


def test_each_of_them_documents_its_429() -> None:
    for route in COSTING:
        method, _, path = route.partition(" ")
        assert "429" in DOCUMENT["paths"][path][method.lower()]["responses"], route


def test_no_429_is_made_without_saying_when_to_come_again() -> None:
    """Wherever one is made: the function that makes it names the header."""
    found = 0
    for file in Path(ingress.__path__[0]).rglob("*.py"):
        source = file.read_text()
        nodes = ast.walk(ast.parse(source)) if "429" in source else ()
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        for function in functions:
            text = ast.unparse(function)
            if "Problem(429" in text:
                found += 1
                assert "'Retry-After'" in text, f"{file.name}: {function.name}"
    assert found > 7
