"""`assistant users` and `assistant keys`, against an ingress that is a function."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import cli
from client import accounts
from client.api import AssistantClient, ClientError

USER = {
    "user_id": "alice", "role": "user", "disabled": False, "rate_limit_requests": 7, "tokens_per_minute": None,
    "max_in_flight": None, "max_pending": None, "created_at": "2026-01-02T03:04:05Z",
}  # fmt: skip
KEY = {
    "id": "0b9c", "user_id": "alice", "name": "ci", "scopes": ["jobs"], "created_at": "2026-01-02T03:04:05Z",
    "expires_at": None, "last_used_at": None,
}  # fmt: skip


class Ingress:
    """Answers one call after the other with `replies`; an int is a status."""

    def __init__(self, *replies: Any) -> None:
        self.replies, self.calls = list(replies), list[tuple[str, str, Any]]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/login":
            return httpx.Response(200, json={"access_token": "t"})
        sent = json.loads(request.content) if request.content else dict(request.url.params)
        self.calls.append((request.method, request.url.raw_path.decode().partition("?")[0], sent))
        reply = self.replies.pop(0)
        if reply == 204:
            return httpx.Response(204)
        if isinstance(reply, int):
            return httpx.Response(reply, json={"code": "last-admin", "detail": "this is the last admin"})
        return httpx.Response(200, json=reply)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ingress]:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ASSISTANT_HOME", str(tmp_path))

    def to(*replies: Any) -> Ingress:
        ingress = Ingress(*replies)

        def client(home: Path, environ: Any, **_: Any) -> AssistantClient:
            environment = {"ASSISTANT_URL": "http://x", "ASSISTANT_PASSWORD": "p"}
            return AssistantClient(home, environment, transport=httpx.MockTransport(ingress))

        monkeypatch.setattr(accounts, "AssistantClient", client)
        return ingress

    return to


def run(*words: str, typed: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, list(words), input=typed)
    return done.exit_code, done.output


def test_users_are_listed_page_after_page(serve: Any) -> None:
    ingress = serve(
        {"items": [USER], "next": "c"}, {"items": [USER | {"user_id": "bob", "disabled": True}], "next": None}
    )
    code, told = run("users", "list")
    assert code == 0
    assert "alice" in told
    assert "rate_limit_requests 7" in told
    assert "bob" in told
    assert [sent for _, _, sent in ingress.calls] == [{"limit": "100"}, {"limit": "100", "cursor": "c"}]
    serve({"items": [USER], "next": None})
    assert json.loads(run("users", "list", "--json")[1]) == [USER]


@pytest.mark.parametrize(
    ("words", "typed", "call"),
    [
        (("add", "bob"), "secret password\nsecret password\n",
         ("POST", "/auth/register", {"user_id": "bob", "password": "secret password", "role": "user"})),
        (("add", "bob", "--admin", "--password-stdin"), "secret password\n",
         ("POST", "/auth/register", {"user_id": "bob", "password": "secret password", "role": "admin"})),
        (("disable", "bob"), "", ("PATCH", "/users/bob", {"disabled": True})),
        (("enable", "b?b"), "", ("PATCH", "/users/b%3Fb", {"disabled": False})),
        (("role", "bob", "admin"), "", ("PATCH", "/users/bob", {"role": "admin"})),
        (("password", "bob", "--password-stdin"), "other password\n",
         ("PATCH", "/users/bob", {"password": "other password"})),
        (("delete", "bob", "--yes"), "", ("DELETE", "/users/bob", {})),
    ],
)  # fmt: skip
def test_a_change_is_one_call_and_a_password_is_never_shown(serve: Any, words: Any, typed: str, call: Any) -> None:
    ingress = serve(204 if words[0] == "delete" else USER)
    code, told = run("users", *words, typed=typed)
    assert code == 0, told
    assert ingress.calls == [call]
    assert "password\n" not in told.replace("a new password", "")
    assert words[1] in told


def test_a_deletion_is_asked_for_twice_and_a_refusal_is_told(serve: Any) -> None:
    ingress = serve(204)
    assert run("users", "delete", "bob", typed="n\n")[0] == 1
    assert ingress.calls == []
    serve(409)
    assert run("users", "disable", "root") == (1, "last-admin: this is the last admin\n")


def test_a_key_is_printed_once_and_alone(serve: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ingress = serve(KEY | {"key": "ask_x_y"})
    done = CliRunner().invoke(cli.app, ["keys", "add", "ci", "--scope", "read", "--expires", "2027-01-01T00:00:00Z"])
    assert done.exit_code == 0
    assert done.stdout == "ask_x_y\n"
    assert "not shown again" in done.stderr
    body = {"name": "ci", "scopes": ["read"], "expires_at": "2027-01-01T00:00:00Z"}
    assert ingress.calls == [("POST", "/api-keys", body)]
    ingress = serve({"items": [KEY], "next": None}, 204)
    assert "never" in run("keys", "list", "--user", "alice")[1]
    assert run("keys", "delete", "0b9c")[0] == 0
    assert ingress.calls == [("GET", "/api-keys", {"user_id": "alice"}), ("DELETE", "/api-keys/0b9c", {})]


def test_a_key_takes_the_place_of_a_password(tmp_path: Path) -> None:
    seen: list[str | None] = []

    def ingress(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(401, json={}) if len(seen) > 1 else httpx.Response(200, json={"items": [], "next": None})

    environment = {"ASSISTANT_URL": "http://x", "ASSISTANT_API_KEY": "ask_x_y"}
    with AssistantClient(tmp_path, environment, transport=httpx.MockTransport(ingress)) as client:
        assert client.jobs(1) == []
        with pytest.raises(ClientError, match="ASSISTANT_API_KEY is refused"):
            client.jobs(1)
    assert seen == ["Bearer ask_x_y"] * 2  # and nobody logs in
    assert list(tmp_path.iterdir()) == []
