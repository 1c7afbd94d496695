"""`assistant train` and `assistant adapters`, against an ingress that is a function."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from client import training
from client.api import AssistantClient
from client.following import INTERRUPTED

JOB = str(uuid4())
RESULT = {
    "adapter": "polite", "provider": "local", "status": "ready", "examples": 4, "held_out": 1, "left_out": 2,
    "loss_first": 3.0, "loss_last": 1.0, "held_out_loss_before": 3.2, "held_out_loss_after": 1.5,
}  # fmt: skip
ADAPTER = {
    "name": "polite", "provider": "local", "status": "failed", "created_at": "2026-01-02T03:04:05Z", "examples": 4,
    "losses": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.0}], "held_out_loss_before": None,
    "held_out_loss_after": None, "error": {"code": "training-failed", "message": "no memory"},
}  # fmt: skip
ANSWER = {"instruction": "Translate.", "input": "chat [x]", "expected": "cat", "before": "dunno", "after": "cat"}


class Ingress:
    """Answers the calls of a training; `views`: of its job, one after another."""

    def __init__(self, *views: dict[str, Any]) -> None:
        self.views, self.calls, self.body = list(views), list[str](), dict[str, Any]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.calls.append(f"{request.method} {path}")
        if path == "/auth/login":
            return httpx.Response(200, json={"access_token": "fresh"})
        if path == "/instruction/train":
            self.body = json.loads(request.read())
            if self.body["name"] == "taken":
                return httpx.Response(409, json={"code": "adapter-exists", "detail": "choose another name"})
            return httpx.Response(202, json={"job_id": JOB})
        if path == f"/jobs/{JOB}/cancel":
            return httpx.Response(202, json={"job_id": JOB, "status": "cancelling"})
        if path == f"/jobs/{JOB}":
            return httpx.Response(200, json=self.views.pop(0))
        if request.method == "DELETE":
            return httpx.Response(204)
        if path == "/instruction/adapters":
            return httpx.Response(200, json={"items": [ADAPTER], "next": None})
        return httpx.Response(200, json={**ADAPTER, "answers": [ANSWER]})


@pytest.fixture
def to(monkeypatch: pytest.MonkeyPatch) -> Any:
    def served_by(ingress: Ingress) -> Ingress:
        def client(home: Path, _: Any, *, root_password: str | None = None) -> AssistantClient:
            environ = {"ASSISTANT_URL": "http://x", "ASSISTANT_PASSWORD": "p"}
            return AssistantClient(home, environ, transport=httpx.MockTransport(ingress))

        monkeypatch.setattr(training, "AssistantClient", client)
        return ingress

    return served_by


PENDING = {"status": "pending", "stage": "train_adapter"}
FAR = {"epoch": 2, "epochs": 3, "step": 17, "steps": 50, "loss": 2.314}


def trained(tmp_path: Path, **body: Any) -> int:
    body = {"name": "polite", **body}
    return training.train(tmp_path, body, root_password=None, as_json=False, sleep=lambda _: None)


def test_a_training_is_followed_to_its_end_and_shows_what_was_learnt(
    to: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = (PENDING, PENDING | {"training": FAR}, {"status": "completed", "result": RESULT})
    ingress = to(Ingress(*views))
    assert trained(tmp_path, epochs=3) == 0
    assert ingress.body == {"name": "polite", "epochs": 3}
    told = capsys.readouterr().out
    assert "polite is ready on local: 4 examples, 1 held out, 2 left out" in told
    assert "loss on those held out: 3.2 -> 1.5" in told
    for text in ("chat [x]", "dunno", '{"mode": "lora", "adapter": "polite"}'):
        assert text in told


def test_how_far_it_is_is_told_in_words() -> None:
    assert training.far_of(FAR) == "epoch 2 of 3, step 17 of 50, loss 2.31"
    assert training.far_of({"epoch": 0, "epochs": 3, "step": 0, "steps": 0}) == "training"


def test_what_is_refused_or_fails_is_said(to: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to(Ingress())
    assert trained(tmp_path, name="taken") == 1
    assert "adapter-exists: choose another name" in capsys.readouterr().err
    to(Ingress({"status": "error", "error": {"code": "training-failed", "message": "no memory"}}))
    assert trained(tmp_path) == 1
    assert "training-failed: no memory" in capsys.readouterr().err


def test_ctrl_c_cancels_it(to: Any, tmp_path: Path) -> None:
    ingress = to(Ingress(PENDING))

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    code = training.train(tmp_path, {"name": "polite"}, root_password=None, as_json=False, sleep=interrupt)
    assert code == INTERRUPTED
    assert f"POST /jobs/{JOB}/cancel" in ingress.calls


def test_adapters_are_listed_and_deleted(to: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingress = to(Ingress())
    assert training.list_adapters(tmp_path, root_password=None, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == [ADAPTER]
    assert training.list_adapters(tmp_path, root_password=None, as_json=False) == 0
    assert "failed" in capsys.readouterr().out
    assert training.delete_adapter(tmp_path, "polite", root_password=None) == 0
    assert ingress.calls[-1] == "DELETE /instruction/adapters/polite"
