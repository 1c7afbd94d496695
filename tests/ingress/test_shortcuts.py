"""A shortcut answers as FastAPI's general way does."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from ingress.app import create_app
from ingress.chat import AsyncChatRequest, ChatBody
from ingress.shortcuts import Shortcut
from schemas.events import JobRequested
from schemas.requests import ChatRequest
from settings import Settings
from tests.conftest import SECRET
from tests.factories import user_updated

PATHS = ("/chat/", "/chat/async", "/v1/chat/completions")
WRONG: dict[str, tuple[dict[str, str], int]] = {
    "nobody": ({"authorization": ""}, 401),
    "not a token": ({"authorization": "Bearer nonsense"}, 401),
    "another scheme": ({"authorization": "Basic abc"}, 401),
    "an empty key": ({"idempotency-key": ""}, 400),
    "a key that is none": ({"idempotency-key": "a b"}, 400),
    "no JSON": ({"content-type": "text/plain"}, 422),
    "a body that does not fit": ({}, 422),
}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    settings = Settings(
        _env_file=None, kafka_bootstrap_servers="127.0.0.1:1", database_url="postgresql://u:p@127.0.0.1:1/x",
        jwt_secret_key=SecretStr(SECRET),
    )  # fmt: skip
    return create_app(settings)


@pytest.fixture
def token(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    made = app.state.services
    monkeypatch.setattr(type(made.user_table), "is_running", property(lambda _: True))
    monkeypatch.setitem(made.user_table.values, "root", user_updated(user_id="root", role="admin"))
    yield made.tokens.issue("root", role="admin", epoch=0)
    app.dependency_overrides.clear()


async def answer(app: FastAPI, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], Any]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        reply = await client.post(path, content=body, headers=headers)
    return reply.status_code, dict(reply.headers), reply.json()


def test_they_are_of_the_busiest_routes_and_no_part_of_what_is_described(app: FastAPI) -> None:
    found = [route for route in app.router.routes if isinstance(route, Shortcut)]
    assert {route.path for route in found} == set(PATHS)
    assert app.router.routes[: len(found)] == found
    assert {route.path for route in found} <= app.openapi()["paths"].keys()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", WRONG)
async def test_what_is_wrong_is_said_in_the_same_words(app: FastAPI, token: str, path: str, name: str) -> None:
    wrong, status = WRONG[name]
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json", "x-request-id": "r"} | wrong

    shortly = await answer(app, path, b'{"nonsense": 1}', headers)
    app.dependency_overrides[lambda: None] = lambda: None  # of nobody, but now it is FastAPI's
    assert shortly == await answer(app, path, b'{"nonsense": 1}', headers)
    assert shortly[0] == (400 if path.startswith("/v1/") and status == 422 else status)  # as OpenAI says it
    assert ("ratelimit" in shortly[1]) == (status != 401)  # where a user stands is said to whoever has shown who


@pytest.mark.parametrize("path", ["/chat/", "/chat/async"])
async def test_an_image_may_be_larger_than_another_body(app: FastAPI, token: str, path: str) -> None:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json", "x-request-id": "r"}
    body = b'{"prompt": "p", "image": "%b"}' % (b"!" * 2_000_000)
    shortly = await answer(app, path, body, headers)
    app.dependency_overrides[lambda: None] = lambda: None
    assert shortly == await answer(app, path, body, headers)
    assert shortly[0] == 400  # looked at, and found to be no image


@pytest.mark.parametrize(
    "body",
    [
        ChatBody(prompt="p", stream=True, cancel_on_disconnect=True),
        AsyncChatRequest(prompt="p", callback_url="https://a.example/x"),
    ],
)
def test_of_a_body_is_published_what_is_the_jobs_request(body: ChatRequest) -> None:
    told = json.loads(JobRequested(user_id="u", kind="chat", request=body).model_dump_json(exclude_none=True))
    assert told["request"] == {"prompt": "p", "generation_config": {}}
