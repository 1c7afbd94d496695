"""The command line's client, against an ingress that is a function."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from client.api import AssistantClient, ClientError


class Ingress:
    """Answers the calls of one chat. `limits`: how many 429 come first."""

    def __init__(self, *, limits: int = 0, end: dict[str, Any] | None = None, first_status: int = 202) -> None:
        self.limits, self.first_status, self.calls = limits, first_status, list[str]()
        self.end = end or {"status": "completed", "result": {"result": {"text": "Because."}}}
        self.looks = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(f"{request.method} {request.url.path}")
        if request.url.path == "/auth/login":
            good = json.loads(request.content)["password"] == "secret"
            body = {"access_token": "fresh"} if good else {"code": "wrong-credentials", "detail": "it is wrong"}
            return httpx.Response(200 if good else 401, json=body)
        if request.headers["authorization"] != "Bearer fresh":
            return httpx.Response(401, json={"code": "not-authenticated", "detail": "log in"})
        if request.url.path == "/chat/async":
            if self.limits:
                self.limits -= 1
                return httpx.Response(
                    429, headers={"retry-after": "2"}, json={"code": "rate-limited", "detail": "wait"}
                )
            return httpx.Response(self.first_status, json={"job_id": "7", "status": "refused", "reason": "r"})
        if request.url.path.endswith("/cancel"):
            return httpx.Response(202, json={"job_id": "7", "status": "cancelling"})
        self.looks += 1
        if self.looks < 3:
            return httpx.Response(200, json={"job_id": "7", "status": "pending", "stage": "generate_completion"})
        return httpx.Response(200, json={"job_id": "7", **self.end})


def client(home: Path, ingress: Ingress, **environ: str) -> AssistantClient:
    environment = {"ASSISTANT_URL": "http://x", "ASSISTANT_PASSWORD": "secret"} | environ
    return AssistantClient(home, environment, transport=httpx.MockTransport(ingress))


def ask(home: Path, ingress: Ingress, **environ: str) -> tuple[dict[str, Any], list[str]]:
    stages: list[str] = []
    with client(home, ingress, **environ) as found:
        return found.ask({"prompt": "Why?"}, on_stage=stages.append, sleep=lambda _: None), stages


def test_it_logs_in_once_follows_the_job_and_tells_its_stages(tmp_path: Path) -> None:
    ingress = Ingress()
    answer, stages = ask(tmp_path, ingress)
    assert answer == {"result": {"text": "Because."}}
    assert stages == ["generate_completion"] * 2
    assert (tmp_path / "secrets" / "token.json").stat().st_mode & 0o777 == 0o600
    ask(tmp_path, ingress)
    assert ingress.calls.count("POST /auth/login") == 1


def test_a_token_that_is_no_longer_good_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    kept = {"url": "http://x", "user": "root", "token": "stale"}
    (tmp_path / "secrets" / "token.json").write_text(json.dumps(kept))
    assert ask(tmp_path, Ingress())[0]


def test_a_rate_limit_is_waited_out_and_shown(tmp_path: Path) -> None:
    _, stages = ask(tmp_path, Ingress(limits=1))
    assert stages[:2] == ["rate limit: 2 s", "rate limit: 1 s"]


def test_a_refusal_is_an_answer_at_once(tmp_path: Path) -> None:
    answer, _ = ask(tmp_path, Ingress(first_status=200))
    assert answer["status"] == "refused"


def test_a_job_that_fails_is_an_error_with_its_code(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="timeout: too slow"):
        ask(tmp_path, Ingress(end={"status": "error", "error": {"code": "timeout", "message": "too slow"}}))


def test_a_job_is_cancelled_by_its_id(tmp_path: Path) -> None:
    ingress, job_id = Ingress(), UUID(int=7)
    with client(tmp_path, ingress) as found:
        assert found.cancel(job_id) == "cancelling"
    assert ingress.calls[-1] == f"POST /jobs/{job_id}/cancel"


def test_a_wrong_password_and_nothing_running_are_said(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="wrong-credentials"):
        ask(tmp_path, Ingress(), ASSISTANT_PASSWORD="wrong")
    with pytest.raises(ClientError, match="make up"):
        AssistantClient(tmp_path, {})
