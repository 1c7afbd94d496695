"""What is told of providers, by the heartbeats of the workers that have them."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from ingress import providers as module
from ingress.app import create_app
from schemas.events import ProviderOffer
from settings import Settings
from tests.conftest import SECRET
from tests.factories import NOW, user_updated
from transport.table import CompactedTable

OFFERED: dict[str, list[ProviderOffer]] = {}


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(
        Settings(
            _env_file=None, kafka_bootstrap_servers="127.0.0.1:1", database_url="postgresql://127.0.0.1:1/x",
            jwt_secret_key=SECRET, allowed_providers=["openai", "lmstudio"],
        )
    )  # fmt: skip
    made = app.state.services
    monkeypatch.setattr(CompactedTable, "is_running", True)
    monkeypatch.setattr(module, "offered_providers", lambda _: OFFERED)
    made.user_table.values = {"alice": user_updated(user_id="alice")}
    token = made.tokens.issue("alice", role="user", epoch=0)
    headers = {"authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as client:
        yield client
    await made.database.close()


def offer(name: str, **more: Any) -> ProviderOffer:
    fields = {
        "models": ("m-1",), "default_model": "m-1", "can": ("stream", "images"), "parameters": ("seed",),
        "healthy": True, "checked_at": NOW,
    }  # fmt: skip
    return ProviderOffer(name=name, **fields | more)


async def told(client: httpx.AsyncClient, *offers: ProviderOffer) -> list[dict[str, Any]]:
    OFFERED.clear()
    for one in offers:
        OFFERED.setdefault(one.name, []).append(one)
    reply = await client.get("/providers")
    assert reply.status_code == 200
    assert reply.json()["next"] is None
    items: list[dict[str, Any]] = reply.json()["items"]
    return items


async def test_a_provider_is_told_with_models_abilities_and_health(client: httpx.AsyncClient) -> None:
    assert await told(client, offer("openai")) == [{
        "name": "openai", "models": ["m-1"], "default_model": "m-1", "stream": True, "images": True,
        "embeddings": False, "parameters": ["seed"], "health": "ok", "breaker": "closed",
        "checked_at": "2026-01-02T03:04:05.020000Z", "workers": 1,
    }]  # fmt: skip


async def test_it_is_well_where_one_worker_that_looked_says_so(client: httpx.AsyncClient) -> None:
    ill = offer("openai", healthy=False, code="provider-http-401", models=("m-1", "m-2"))
    older = offer("openai", checked_at=NOW - timedelta(minutes=1))
    (both,) = await told(client, ill, older)
    assert (both["health"], both["workers"], both["models"], "code" in both) == ("ok", 2, ["m-1", "m-2"], False)
    (alone,) = await told(client, ill)
    assert (alone["health"], alone["code"]) == ("failing", "provider-http-401")
    (unknown,) = await told(client, offer("openai", healthy=None, checked_at=None))
    assert (unknown["health"], unknown["checked_at"]) == ("unknown", None)


@pytest.mark.parametrize(
    ("states", "told_of"),
    [(("closed", None), "closed"), (("closed", "half-open"), "half-open"), (("half-open", "open", "closed"), "open")],
)
async def test_the_worst_of_the_workers_breakers_is_told(
    client: httpx.AsyncClient, states: tuple[str | None, ...], told_of: str
) -> None:
    (item,) = await told(client, *(offer("openai", breaker=state) for state in states))
    assert item["breaker"] == told_of


async def test_what_is_not_allowed_or_not_there_is_not_told(client: httpx.AsyncClient) -> None:
    assert [item["name"] for item in await told(client, offer("gemini"), offer("openai"))] == ["openai"]
    assert await told(client) == []


async def test_lm_studios_models_are_listed_in_its_own_shape(client: httpx.AsyncClient) -> None:
    await told(client, offer("openai"), offer("lmstudio", models=("a", "b")))
    assert (await client.get("/lmstudio/models/")).json() == {
        "object": "list", "data": [{"id": "a", "object": "model"}, {"id": "b", "object": "model"}],
    }  # fmt: skip
    await told(client, offer("openai"))
    reply = await client.get("/lmstudio/models/")
    assert (reply.status_code, reply.json()["code"], reply.json()["providers"]) == (400, "no-such-provider", ["openai"])


@pytest.mark.parametrize("path", ["/providers", "/lmstudio/models/"])
async def test_nobody_without_a_token_is_told_anything(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path, headers={"authorization": ""})).status_code == 401
