"""`assistant incidents`, against an ingress that is a function."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from client import incidents
from client.api import AssistantClient

ITEM = {
    "incident_id": "i-1", "at": "2026-01-02T03:04:05Z", "user_id": "mallory", "reason": "exfiltration",
    "stage": "sanitize_prompt", "job_id": "0190-a", "source": "rest", "address": "203.0.113.7", "score": 0.8,
    "excerpt": "print [secret] \x1b[2J now",
}  # fmt: skip


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    monkeypatch.setenv("COLUMNS", "200")
    calls: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/login":
            return httpx.Response(200, json={"access_token": "t"})
        calls.append(request)
        if request.url.path.endswith("/export"):
            return httpx.Response(200, content=b'{"a": 1}\n{"b": 2}\n{"cut')
        if request.url.path.startswith("/users/nobody"):
            return httpx.Response(404, json={"code": "not-found", "detail": "there is no such thing"})
        return httpx.Response(200, json={"items": [ITEM], "next": None})

    def client(home: Path, environ: Any) -> AssistantClient:
        environment = {"ASSISTANT_URL": "http://x", "ASSISTANT_PASSWORD": "p"}
        return AssistantClient(home, environment, transport=httpx.MockTransport(answer))

    monkeypatch.setattr(incidents, "AssistantClient", client)
    return calls


def test_a_list_shows_who_what_and_from_where_and_moves_no_cursor(
    calls: list[httpx.Request], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert incidents.list_incidents(tmp_path, {"user_id": "mallory"}, limit=5, as_json=False) == 0
    shown = capsys.readouterr().out
    for text in ("2026-01-02T03:04:05", "mallory", "exfiltration", "rest 203.0.113.7", "0190-a", "[secret]"):
        assert text in shown
    assert "\x1b[2J" not in shown
    assert dict(calls[0].url.params) == {"user_id": "mallory", "limit": "5"}
    assert incidents.list_incidents(tmp_path, {}, limit=5, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == [ITEM]


def test_an_export_writes_whole_lines_to_a_file_that_was_not_there(
    calls: list[httpx.Request], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "incidents.jsonl"
    assert incidents.export(tmp_path, {"reason": "x"}, output=file) == 0
    assert file.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
    assert dict(calls[0].url.params) == {"reason": "x"}
    assert incidents.export(tmp_path, {}, output=file) == 1
    assert "is there already" in capsys.readouterr().err


def test_a_quarantine_is_lifted_by_name(
    calls: list[httpx.Request], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert incidents.lift(tmp_path, "a?b") == 0
    assert calls[0].url.raw_path == b"/users/a%3Fb/lift-quarantine"
    assert "a?b is in no quarantine" in capsys.readouterr().out
    assert incidents.lift(tmp_path, "nobody") == 1
    assert "not-found" in capsys.readouterr().err
