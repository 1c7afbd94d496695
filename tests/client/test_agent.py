"""`assistant agent`, against an ingress that is a function."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from client import agent as commands
from client.api import AssistantClient, ClientError

STEPS = [
    {"step": 1, "thought": "look", "action": "external_api", "action_input": {"url": "u"}, "observation": "a page"},
    {"step": 2, "thought": "tell", "action": "external_api", "action_input": {"url": "v"}, "observation": None},
]
DONE = {**STEPS[1], "observation": "told", "approval": "approved"}


class Ingress:
    """One run: a step, a call that waits for approval, and the end. `calls`: what was sent."""

    def __init__(self, *, end: dict[str, Any] | None = None, refused: bool = False) -> None:
        self.calls: list[str] = []
        self.decided: str | None = None
        self.end = end or {"status": "completed", "result": {"answer": "Done."}, "error": None}
        self.refused = refused

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/auth/login":
            return httpx.Response(200, json={"access_token": "t"})
        self.calls.append(f"{request.method} {path}")
        if path == "/agents/run":
            if self.refused:
                answer = {"job_id": "7", "status": "refused", "reason": "exfiltration", "answer": "No."}
                return httpx.Response(200, json=answer)
            assert json.loads(request.content)["goal"] == "g"
            return httpx.Response(202, json={"job_id": "7"})
        if request.method == "POST":
            self.decided = path.rpartition("/")[2]
            return httpx.Response(202, json={})
        view: dict[str, Any] = {"job_id": "7", "status": "pending", "history": STEPS[: min(len(self.calls), 2)]}
        if self.decided is not None:
            return httpx.Response(200, json={**view, "history": [STEPS[0], DONE], **self.end})
        if len(view["history"]) == 2:
            wanted = {"step": 2, "tool": "external_api", "action_input": {"url": "v"}}
            view |= {"state": "requires_action", "requires_action": wanted}
        return httpx.Response(200, json=view)


def client(home: Path, ingress: Ingress) -> AssistantClient:
    environment = {"ASSISTANT_URL": "http://x", "ASSISTANT_PASSWORD": "secret"}
    return AssistantClient(home, environment, transport=httpx.MockTransport(ingress))


@pytest.mark.parametrize(("may", "sent"), [(True, "approve"), (False, "reject")])
def test_each_step_is_shown_once_and_each_call_asked_for_once(tmp_path: Path, may: bool, sent: str) -> None:
    ingress, shown, asked = Ingress(), list[int](), list[int]()

    def decide(call: dict[str, Any]) -> bool:
        asked.append(call["step"])
        return may

    with client(tmp_path, ingress) as found:
        view = commands.follow(
            found, {"goal": "g"}, on_step=lambda step: shown.append(step["step"]), may=decide, sleep=lambda _: None
        )
    assert view["result"] == {"answer": "Done."}
    assert (shown, asked, ingress.decided) == ([1, 2], [2], sent)


def run(monkeypatch: pytest.MonkeyPatch, home: Path, ingress: Ingress, **more: Any) -> int:
    monkeypatch.setattr(commands, "AssistantClient", lambda *_, **__: client(home, ingress))
    options: dict[str, Any] = {"approve": "ask", "as_json": False} | more
    return commands.agent(home, {"goal": "g"}, root_password=None, **options)


def test_the_answer_is_printed_and_the_steps_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ingress = Ingress()
    assert run(monkeypatch, tmp_path, ingress, approve="always") == 0
    out, err = capsys.readouterr()
    assert out == "Done.\n"
    assert "1. look" in err
    assert ingress.decided == "approve"


def test_where_nobody_can_be_asked_nothing_is_approved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingress = Ingress()
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert run(monkeypatch, tmp_path, ingress) == 0
    assert ingress.decided == "reject"


@pytest.mark.parametrize(
    ("ingress", "code", "told"),
    [
        (Ingress(end={"status": "error", "result": None, "error": {"code": "max-steps", "message": "more"}}), 1,
         "max-steps: more"),
        (Ingress(refused=True), 2, "(refused: exfiltration)"),
    ],
)  # fmt: skip
def test_a_run_without_an_answer_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ingress: Ingress, code: int,
    told: str,
) -> None:  # fmt: skip
    assert run(monkeypatch, tmp_path, ingress, approve="never") == code
    assert told in capsys.readouterr().err


def test_as_json_it_is_the_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, tmp_path, Ingress(), as_json=True, approve="never") == 0
    assert [step["step"] for step in json.loads(capsys.readouterr().out)["history"]] == [1, 2]


def test_no_run_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> AssistantClient:
        raise ClientError("nothing is running here")

    monkeypatch.setattr(commands, "AssistantClient", gone)
    assert commands.agent(tmp_path, {}, root_password=None, approve="ask", as_json=False) == 1
