"""Errors where OpenAI's clients call: what they raise, and what they do not ask twice."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest

from ingress.app import create_app
from ingress.http.problems import Problem
from ingress.openai_api.errors import should_retry
from ingress.services import Services
from ingress.submitting import idempotency
from processors.completion.fit_generation import refusal
from processors.errors import RetryableError
from schemas.events import ProviderOffer
from settings import Settings
from tests.conftest import SECRET
from tests.factories import user_updated
from transport.table import CompactedTable

MESSAGES: Any = [{"role": "user", "content": "hi"}]
JOB: dict[str, Any] = {"headers": {"Location": "/jobs/1"}, "job_id": "1"}


@pytest.mark.parametrize(
    ("status", "code", "has_job", "keyed", "unkeyed"),
    [
        (400, "invalid-body", False, None, None), (401, "not-authenticated", False, None, None),
        (404, "no-such-model", False, None, None), (413, "body-too-large", False, None, None),
        (429, "rate-limited", True, None, None), (429, "rate-limited", False, None, None),
        (503, "not-accepted", False, "true", "true"), (503, "overloaded", False, "true", "true"),
        (503, "not-ready", False, "true", "true"), (504, "outcome-unknown", True, "true", "false"),
        (504, "timeout", True, "false", "false"), (503, "provider-unreachable", True, "false", "false"),
        (502, "empty-completion", True, "false", "false"), (500, "unexpected-error", True, "false", "false"),
        (500, "internal-error", False, "true", "false"), (409, "cancelled", True, "false", "false"),
        (503, "stream-cut", True, "false", "false"),
    ],
)  # fmt: skip
def test_nothing_is_asked_twice_that_would_be_done_twice(
    status: int, code: str, has_job: bool, keyed: str | None, unkeyed: str | None
) -> None:
    assert should_retry(status, code, has_job=has_job, is_keyed=True) == keyed
    assert should_retry(status, code, has_job=has_job, is_keyed=False) == unkeyed


class Ingress:
    """The app without Kafka. `raises`: what comes of every request that is accepted; `asked`: how many were."""

    def __init__(self, made: Services, client: openai.AsyncOpenAI) -> None:
        self.made, self.client = made, client
        self.raises: Exception = Problem(503, "not-accepted", "no", headers={"Retry-After": "0"})
        self.asked = 0

    async def answered(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        raise self.raises

    async def ask(self, **more: Any) -> Any:
        body: dict[str, Any] = {"model": "m", "messages": MESSAGES} | more
        return await self.client.chat.completions.create(**body)


@pytest.fixture
async def ingress(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ingress]:
    settings = Settings(
        _env_file=None, kafka_bootstrap_servers="127.0.0.1:1", database_url="postgresql://127.0.0.1:1/x",
        jwt_secret_key=SECRET, allowed_providers=["openai"], max_body_bytes=100_000,
    )  # fmt: skip
    app = create_app(settings)
    made: Services = app.state.services
    monkeypatch.setattr(CompactedTable, "is_running", True)
    monkeypatch.setattr("ingress.app.offered_providers", lambda _: {"openai": [ProviderOffer(
        name="openai", models=("m",), parameters=("temperature",), healthy=True)]})  # fmt: skip
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *_: 0)
    made.user_table.values = {"alice": user_updated(user_id="alice")}
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app, raise_app_exceptions=False))
    key = made.tokens.issue("alice", role="user", epoch=0)
    client = openai.AsyncOpenAI(base_url="http://x/v1", api_key=key, http_client=http)
    found = Ingress(made, client)
    monkeypatch.setattr(made.submissions, "answered", found.answered)
    yield found
    await client.close()
    await made.database.close()


def read(error: openai.APIStatusError, code: str) -> dict[str, Any]:
    """What the client has of an error; the whole body is a problem as on every path."""
    assert (error.code, error.response.headers["content-type"]) == (code, "application/problem+json")
    body: dict[str, Any] = error.response.json()
    assert body["code"] == body["error"]["code"]
    assert body["detail"].startswith(body["error"]["message"])
    assert body["status"] == error.response.status_code
    assert body["request_id"] == error.request_id
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body


async def test_a_stranger_is_told_so(ingress: Ingress) -> None:
    ingress.client.api_key = "sk-nothing"
    with pytest.raises(openai.AuthenticationError) as caught:
        await ingress.ask()
    read(caught.value, "not-authenticated")


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"temperature": 3}, "temperature", "invalid-body"), ({"n": 2}, "n", "unsupported-parameter"),
        ({"extra_body": {"colour": "red"}}, "colour", "unsupported-parameter"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid-body"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content", "invalid-body"),
        ({"extra_headers": {"Idempotency-Key": "a b"}}, None, "idempotency-key-invalid"),
    ],
)  # fmt: skip
async def test_what_does_not_fit_is_a_400_that_names_it(
    ingress: Ingress, more: dict[str, Any], param: str | None, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await ingress.ask(**more)
    read(caught.value, code)
    assert (caught.value.param, caught.value.type, ingress.asked) == (param, "invalid_request_error", 0)


async def test_what_is_no_json_is_a_400_too(ingress: Ingress) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await ingress.client.post("/chat/completions", cast_to=object, content=b"{")
    read(caught.value, "invalid-body")


async def test_a_parameter_that_the_model_has_not_is_told_in_this_apis_words(ingress: Ingress) -> None:
    names = ("response_format.json_object", "seed")
    ingress.raises = Problem(400, "unsupported-parameter", refusal("openai", names), parameters=list(names))
    with pytest.raises(openai.BadRequestError) as caught:
        await ingress.ask()
    assert caught.value.param == "response_format"
    assert "generation_config" not in read(caught.value, "unsupported-parameter")["error"]["message"]


async def test_no_such_model_and_no_such_path_are_a_404(ingress: Ingress) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await ingress.ask(model="nothing")
    read(caught.value, "no-such-model")
    assert caught.value.param == "model"
    for ask in (ingress.client.models.retrieve("nothing"), ingress.client.get("/nowhere", cast_to=object)):
        with pytest.raises(openai.NotFoundError) as caught:
            await ask
        read(caught.value, "not-found")


async def test_a_body_that_is_too_large_is_a_413(ingress: Ingress) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    for content in (b"x" * 100_001, chunks()):
        with pytest.raises(openai.APIStatusError) as caught:
            await ingress.client.with_options(max_retries=0).post(
                "/chat/completions", cast_to=object, content=content,
                options={"headers": {"content-type": "application/json"}},
            )  # fmt: skip
        assert caught.value.status_code == 413
        read(caught.value, "body-too-large")


@pytest.mark.parametrize(
    ("raises", "kind", "keyed", "times"),
    [
        (Problem(503, "not-accepted", "no"), openai.InternalServerError, False, 3),
        (Problem(504, "outcome-unknown", "maybe", **JOB), openai.InternalServerError, False, 1),
        (Problem(504, "outcome-unknown", "maybe", **JOB), openai.InternalServerError, True, 3),
        (Problem(504, "timeout", "no", **JOB), openai.InternalServerError, False, 1),
        (Problem(502, "empty-completion", "no", **JOB), openai.InternalServerError, True, 1),
        (Problem(409, "cancelled", "no", **JOB), openai.ConflictError, False, 1),
        (Problem(429, "rate-limited", "no", **JOB), openai.RateLimitError, False, 3),
        (Problem(422, "idempotency-key-reused", "no"), openai.BadRequestError, True, 1),
        (RetryableError("database-unavailable", "Postgres does not answer"), openai.InternalServerError, True, 3),
        (ValueError("a bug"), openai.InternalServerError, False, 1),
    ],
)  # fmt: skip
async def test_the_client_asks_again_only_where_that_makes_no_second_job(
    ingress: Ingress, raises: Exception, kind: type[openai.APIStatusError], keyed: bool, times: int
) -> None:
    ingress.raises = raises
    headers = {"Idempotency-Key": "k-1"} if keyed else {}
    with pytest.raises(kind) as caught:
        await ingress.ask(extra_headers=headers)
    assert ingress.asked == times
    code = getattr(raises, "code", "internal-error")
    read(caught.value, code)
    assert caught.value.message.startswith("Error code")


async def test_other_paths_say_nothing_to_openais_clients(ingress: Ingress) -> None:
    reply = await ingress.client._client.post("http://x/chat/", json={})
    assert "error" not in reply.json()
    assert "x-should-retry" not in reply.headers


def test_every_outcome_that_frees_a_key_may_be_asked_again() -> None:
    """A keyed request that is asked again by itself gets the same answer, unless its key was freed."""
    for code in idempotency.FREEING:
        status = 429 if code == "rate-limited" else 400
        assert should_retry(status, code, has_job=True, is_keyed=True) is None
