"""`assistant dlq`, against an ingress that is a function."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from client import dlq
from client.api import AssistantClient
from client.dlq import Wanted

ITEM = {
    "job_id": "0190-a", "at": "2026-01-02T03:04:05.678Z", "stage": "generate_completion", "code": "provider-http-401",
    "reason": "openai answered with status 401", "partition": 0, "offset": 7, "redriven_run": 2,
}  # fmt: skip


class Ingress:
    """Answers one call after the other with `replies`; an int is a status."""

    def __init__(self, *replies: Any) -> None:
        self.replies, self.calls = list(replies), list[tuple[str, Any]]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/login":
            return httpx.Response(200, json={"access_token": "t"})
        sent = json.loads(request.content) if request.content else dict(request.url.params)
        self.calls.append((request.url.path, sent))
        reply = self.replies.pop(0)
        if isinstance(reply, int):
            return httpx.Response(reply, json={"code": "not-accepted", "detail": "Kafka does not answer"})
        return httpx.Response(200, json=reply)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "200")

    def to(*replies: Any) -> Ingress:
        ingress = Ingress(*replies)

        def client(home: Path, environ: Any) -> AssistantClient:
            environment = {"ASSISTANT_URL": "http://x", "ASSISTANT_PASSWORD": "p"}
            return AssistantClient(home, environment, transport=httpx.MockTransport(ingress))

        monkeypatch.setattr(dlq, "AssistantClient", client)
        return ingress

    return to


def report(*runs: int, skipped: tuple[str, ...] = (), cursor: str | None = None) -> dict[str, Any]:
    return {
        "redriven": [{"job_id": f"j{run}", "run": run} for run in runs],
        "skipped": [{"job_id": "s", "reason": reason} for reason in skipped], "next": cursor,
    }  # fmt: skip


def test_a_list_shows_job_code_and_why(serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without_a_job = {name: value for name, value in ITEM.items() if name not in ("job_id", "redriven_run")}
    ingress = serve({"items": [ITEM, without_a_job], "next": None}, {"items": [ITEM], "next": None})
    assert dlq.list_letters(tmp_path, Wanted(code="c", stage="s"), limit=5, as_json=False) == 0
    shown = capsys.readouterr().out
    for text in ("0190-a", "provider-http-401", "openai answered with status 401", "as run 2", "(none: 0/7)"):
        assert text in shown
    assert ingress.calls == [("/admin/dlq", {"code": "c", "stage": "s", "limit": "5"})]
    assert dlq.list_letters(tmp_path, Wanted(), limit=5, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == [ITEM]


def test_a_jobs_letters_are_shown_with_their_records(
    serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingress = serve({"items": [ITEM], "next": None}, {**ITEM, "value": {"a": 1}}, {"items": [], "next": None})
    assert dlq.show(tmp_path, "0190-a") == 0
    assert json.loads(capsys.readouterr().out) == [{**ITEM, "value": {"a": 1}}]
    assert [path for path, _ in ingress.calls] == ["/admin/dlq", "/admin/dlq/0/7"]
    assert dlq.show(tmp_path, "0190-b") == 1
    assert "has no dead letter" in capsys.readouterr().err


def test_a_redrive_goes_on_by_cursor_and_says_what_happened(
    serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingress = serve(report(2, 3, skipped=("because",), cursor="c1"), report(4, skipped=("because",)))
    assert dlq.redrive(tmp_path, Wanted(code="c"), as_json=False) == 0
    shown = capsys.readouterr().out
    assert "3 jobs run again; 2 skipped" in shown
    assert "2 × because" in shown
    assert ingress.calls == [
        ("/admin/dlq/redrive", {"code": "c"}), ("/admin/dlq/redrive", {"code": "c", "cursor": "c1"})
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("replies", "code", "told"),
    [
        ((report(2),), 0, "the job j2 runs again, as run 2; 0 skipped"),
        ((report(),), 0, "there is no such dead letter"),
        ((report(skipped=("already",)),), 0, "0 jobs run again; 1 skipped"),
        ((503,), 1, "Kafka does not answer"),
        ((report(2, cursor="c"), 503), 1, "stopped early"),
    ],
)
def test_a_redrive_tells_how_it_ended(
    serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], replies: Any, code: int, told: str
) -> None:
    serve(*replies)
    assert dlq.redrive(tmp_path, Wanted(), as_json=False) == code
    shown = capsys.readouterr()
    assert told in shown.out + shown.err


def test_a_redrive_for_programs_is_json(serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serve(report(2, skipped=("x",)))
    assert dlq.redrive(tmp_path, Wanted(job="j2"), as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"redriven": [{"job_id": "j2", "run": 2}], "skipped": [{"job_id": "s", "reason": "x"}]}
