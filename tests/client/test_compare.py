"""`assistant compare`, against an ingress that is a function."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from client import compare as module
from client.api import AssistantClient
from client.compare import MAX_SILENT, Wanted, compare

ID = "019b0000-0000-7000-8000-000000000007"
BODY = {"prompts": ["a", "b"], "variants": [{"provider": "openai"}, {"provider": "local"}]}
FIGURES = {
    "latency_ms": {"p50": 10.0, "p95": 20.0},
    "total_ms": None,
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}


def view(status: str, *, waits: bool = False, **progress: int) -> dict[str, Any]:
    variant = {"variant": 0, "provider": "openai", "cells": progress, "cost": 0.00002, **FIGURES}
    found = {"comparison_id": ID, "status": status, "progress": {"cells": 4, **progress}, "variants": [variant]}
    return found | ({"waits_for": {"code": "rate-limited", "until": "2026-01-02T03:04:05Z"}} if waits else {})


class Ingress:
    """`replies`: to what is looked at, one after the other; an int is a status. `begins`: to POST /compare."""

    def __init__(self, *replies: Any, begins: tuple[int, ...] = (202,)) -> None:
        self.replies, self.begins = list(replies), list(begins)
        self.bodies: list[Any] = []
        self.keys: list[str] = []
        self.calls: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/login":
            return httpx.Response(200, json={"access_token": "t"})
        self.calls.append(f"{request.method} {request.url.path}")
        if request.method == "POST" and request.url.path == "/compare":
            self.bodies.append(json.loads(request.content))
            self.keys.append(request.headers["idempotency-key"])
            status = self.begins.pop(0)
            body = {"comparison_id": ID, "code": "not-accepted", "detail": "not now"}
            return httpx.Response(status, json=body)
        if request.url.path.endswith("/cancel"):
            return httpx.Response(202, json={"status": "cancelling"})
        if request.url.path.endswith("/report"):
            return httpx.Response(200, content=f"a report as {request.url.params['format']}".encode())
        reply = self.replies.pop(0)
        if isinstance(reply, int):
            return httpx.Response(reply, json={"code": "not-accepted", "detail": "not now"})
        return httpx.Response(200, json=reply)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("client.compare.time.sleep", lambda _: None)

    def to(*replies: Any, **more: Any) -> Ingress:
        ingress = Ingress(*replies, **more)

        def client(home: Path, environ: Any, **_: Any) -> AssistantClient:
            environment = {"ASSISTANT_URL": "http://x", "ASSISTANT_PASSWORD": "p"}
            return AssistantClient(home, environment, transport=httpx.MockTransport(ingress))

        monkeypatch.setattr(module, "AssistantClient", client)
        return ingress

    return to


def run(home: Path, wanted: Wanted) -> int:
    return compare(home, wanted, root_password=None)


def written(home: Path, text: str = json.dumps(BODY)) -> Path:
    path = home / "grid.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text", [json.dumps(BODY), "prompts: [a, b]\nvariants:\n- provider: openai\n- {provider: local}\n"]
)
def test_it_runs_a_file_shows_how_far_it_is_and_writes_reports(
    serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    ingress = serve(view("running", waits=True, waiting=3, completed=1, rate_limited=2), view("completed", completed=4))
    reports = [tmp_path / f"out.{ending}" for ending in ("json", "csv", "HTML")]
    assert run(tmp_path, Wanted(written(tmp_path, text), reports=reports)) == 0
    assert ingress.bodies == [BODY]
    shown = capsys.readouterr()
    assert ID in shown.err
    assert "4 cells: 3 waiting, 1 completed · refused for the rate and asked again: 2 · rate-limited" in shown.err
    assert "10 / 20 ms" in shown.out
    assert "0.000020" in shown.out
    assert [path.read_text() for path in reports] == [f"a report as {name}" for name in ("json", "csv", "html")]


def test_a_second_try_is_no_second_comparison(serve: Any, tmp_path: Path) -> None:
    ingress = serve(view("completed", completed=4), begins=(503, 504, 202))
    assert run(tmp_path, Wanted(written(tmp_path))) == 0
    assert len(ingress.keys) == 3
    assert len(set(ingress.keys)) == 1


def test_an_ingress_that_is_away_for_a_while_is_waited_for(
    serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingress = serve(*[503] * (MAX_SILENT - 1), view("completed", completed=4))
    assert run(tmp_path, Wanted(resume=UUID(ID))) == 0
    assert not ingress.bodies
    serve(*[503] * MAX_SILENT)
    assert run(tmp_path, Wanted(resume=UUID(ID))) == 1
    assert f"--resume {ID}" in capsys.readouterr().err


def test_not_all_answered_is_told_by_the_exit_code_and_json_is_for_programs(
    serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(view("cancelled", completed=3, cancelled=1))
    assert run(tmp_path, Wanted(resume=UUID(ID), as_json=True)) == 2
    assert json.loads(capsys.readouterr().out)["status"] == "cancelled"


def test_it_can_be_cancelled(serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingress = serve()
    assert run(tmp_path, Wanted(cancel=UUID(ID))) == 0
    assert "cancelling" in capsys.readouterr().err
    assert ingress.calls == [f"POST /compare/{ID}/cancel"]


@pytest.mark.parametrize(
    ("text", "report", "told"),
    [("- a\n", "x.csv", "must hold prompts"), ("{", "x.csv", "neither JSON nor YAML"), ("{}", "x.pdf", ".html file")],
)
def test_what_cannot_be_is_said_before_anything_is_asked(
    serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, report: str, told: str
) -> None:
    ingress = serve()
    assert run(tmp_path, Wanted(written(tmp_path, text), reports=[tmp_path / report])) == 1
    assert told in capsys.readouterr().err.replace("\n", " ")
    assert ingress.calls == []
    assert run(tmp_path, Wanted()) == 1


def test_an_interrupt_says_how_to_go_on(
    serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    serve(view("running", waiting=4))
    monkeypatch.setattr("client.compare.time.sleep", interrupt)
    assert run(tmp_path, Wanted(written(tmp_path))) == 1
    assert f"--cancel {ID}" in capsys.readouterr().err.replace("\n", "")
