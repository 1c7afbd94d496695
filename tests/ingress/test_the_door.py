"""The whole app without anything behind it: no forged token gets in, and no body sets what is not its sender's."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from ingress.app import create_app
from ingress.http.openapi import document
from ingress.services import asking_user, current_user, logged_in_user, user_admin
from settings import Settings
from tests.conftest import SECRET
from tests.factories import user_updated
from tests.ingress.test_tokens import FORGED, GOOD

OURS = {
    "user_id": "root", "owner": "root", "role": "admin", "is_admin": True, "status": "completed", "cost": 0,
    "tenant": "others", "id": "1", "job_id": "1", "accepted_at": "2020-01-01T00:00:00Z", "token_epoch": 0, "run": 9,
    "disabled": False, "scopes": ["admin"], "key_id": "1",
}  # fmt: skip
APP = create_app(
    Settings(_env_file=None, kafka_bootstrap_servers="nowhere:1", database_url="postgresql://a:b@nowhere/c",
             jwt_secret_key=SECRET)
)  # fmt: skip
DOCUMENT = document(APP)
WITH_BODY = [
    (method, path)
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if "application/json" in methods[method].get("requestBody", {}).get("content", {})
]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://ingress") as client:
        yield client


@pytest.fixture
def as_admin() -> Any:
    """Whoever asks is an admin: what is refused then is refused for what it says."""
    who = user_updated(user_id="root", role="admin")
    for dependency in (current_user, asking_user, user_admin, logged_in_user):
        APP.dependency_overrides[dependency] = lambda: who
    yield
    APP.dependency_overrides.clear()


# What a header can hold; blanks around a value are not part of it.
SENT = [name for name, token in FORGED.items() if token.isascii() and token.isprintable() and token == token.strip()]


@pytest.mark.parametrize("name", SENT)
async def test_a_forged_token_is_a_401_that_says_nothing_of_why(client: httpx.AsyncClient, name: str) -> None:
    expected = (await client.get("/jobs")).json()
    for headers in ({"authorization": f"Bearer {FORGED[name]}"}, {"authorization": f"bearer {FORGED[name]}"},
                    {"authorization": FORGED[name]}, {"authorization": f"Basic {GOOD}"}):  # fmt: skip
        reply = await client.get("/jobs", headers=headers)
        assert reply.status_code == 401, headers
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.json() | {"request_id": ""} == expected | {"request_id": ""}


async def test_the_right_one_is_not_refused_but_waits_for_the_users(client: httpx.AsyncClient) -> None:
    reply = await client.get("/jobs", headers={"authorization": f"Bearer {GOOD}"})
    assert (reply.status_code, reply.json()["code"]) == (503, "not-ready")


def declared(path: str, method: str) -> set[str]:
    schema = DOCUMENT["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    found = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return set(found["properties"])


async def test_no_body_sets_what_is_not_its_senders(client: httpx.AsyncClient, as_admin: None) -> None:
    assert len(WITH_BODY) > 12
    for method, path in WITH_BODY:
        filled = path
        while "{" in filled:
            filled = filled[: filled.index("{")] + "alice" + filled[filled.index("}") + 1 :]
        foreign = OURS.keys() - declared(path, method)
        for name in foreign:
            body = {name: OURS[name]}
            if path == "/v1/chat/completions":  # OpenAI's error names one thing at a time
                body |= {"model": "openai/m", "messages": [{"role": "user", "content": "x"}]}
            if path == "/v1/embeddings":
                body |= {"model": "openai/m", "input": "x"}
            reply = await client.request(method, filled, json=body)
            told = reply.json()
            if path.startswith("/v1/"):
                assert (reply.status_code, told["error"]["param"]) == (400, name), (path, name, told)
            else:
                assert reply.status_code == 422, (path, name, told)
                messages = {error["path"]: error["message"] for error in told["errors"]}
                assert messages.get(name) == "Extra inputs are not permitted", (path, name, told)


def test_every_body_says_that_it_takes_nothing_else() -> None:
    for method, path in WITH_BODY:
        schema = DOCUMENT["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
        found = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        assert found.get("additionalProperties") is (path.startswith("/v1/") or False), path


async def asked(path: str, headers: list[tuple[bytes, bytes]]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """One GET, its path and headers exactly as they stand here: clients would tidy them up."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("ingress", 80), "state": {},
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await APP(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], sent[0]["headers"], body


@pytest.mark.parametrize("way", [
    "/static/../../../../../../etc/passwd", "/static/..%2f..%2f..%2f..%2fetc/passwd", "/static//etc/passwd",
    "/static/....//....//....//etc/passwd", "/static/\x00/etc/passwd", "/static/%2e%2e/%2e%2e/etc/passwd",
    "/static/..\\..\\..\\etc\\passwd", "//etc/passwd", "/static/swagger-ui.css/../../../../../etc/passwd",
])  # fmt: skip
async def test_no_path_leads_out_of_what_is_served(way: str) -> None:
    status, _, body = await asked(way, [])
    assert status == 404
    assert b"root:" not in body


@pytest.mark.parametrize("given", [
    b"mine\r\nset-cookie: a=b", b"mine\nx: y", b"a" * 65, b"", "é".encode(), b"../../x", b"a b", b"\x00", b"<script>",
])  # fmt: skip
async def test_no_header_of_the_callers_comes_back_but_a_plain_name(given: bytes) -> None:
    _, headers, body = await asked("/livez", [(b"x-request-id", given), (b"host", b"evil.example\r\nx: y")])
    told = dict(headers)[b"x-request-id"]
    assert told != given
    assert told.isalnum()
    for _, value in headers:
        assert not any(control in value for control in (b"\r", b"\n", b"\x00"))
        assert b"evil" not in value
    assert b"evil" not in body
