"""The command line's client, against an ingress that is a function."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from client import commands
from client.api import MAX_RATE_LIMIT_WAITS, AssistantClient, ClientError


class Ingress:
    """Answers the calls of one chat. `limits`: how many 429 come first; `late_limits`: how many as outcomes."""

    def __init__(
        self, *, limits: int = 0, late_limits: int = 0, end: dict[str, Any] | None = None, first_status: int = 202
    ) -> None:
        self.limits, self.late_limits, self.first_status, self.calls = limits, late_limits, first_status, list[str]()
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
        if request.url.path == "/jobs":
            items = [{"job_id": "7"}] if request.url.params.get("user_id") == "root" else [{"job_id": "of all"}]
            return httpx.Response(200, json={"items": items, "next": None})
        if request.url.path == "/chat/async":
            if self.limits:
                self.limits -= 1
                return httpx.Response(
                    429, headers={"retry-after": "2"}, json={"code": "rate-limited", "detail": "wait"}
                )
            return httpx.Response(self.first_status, json={"job_id": "7", "status": "refused", "reason": "r"})
        if self.late_limits:
            self.late_limits -= 1
            error = {"code": "rate-limited", "message": "wait", "retry_after_s": 2.5}
            return httpx.Response(200, json={"job_id": "7", "status": "error", "error": error})
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
    told: list[str] = []

    def on_wait(left: int, of: int) -> None:
        told.append(f"{left} of {of}")

    with client(home, ingress, **environ) as found:
        return found.ask({"prompt": "Why?"}, on_stage=told.append, on_wait=on_wait, sleep=lambda _: None), told


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
    _, told = ask(tmp_path, Ingress(limits=1))
    assert told[:2] == ["2 of 2", "1 of 2"]


def test_a_rate_limit_that_is_told_by_the_job_is_waited_out_too(tmp_path: Path) -> None:
    ingress = Ingress(late_limits=2)
    answer, told = ask(tmp_path, ingress)
    assert answer == {"result": {"text": "Because."}}
    assert told[:6] == ["3 of 3", "2 of 3", "1 of 3"] * 2
    assert ingress.calls.count("POST /chat/async") == 3


def test_a_rate_limit_that_never_ends_is_given_up(tmp_path: Path) -> None:
    ingress = Ingress(limits=1000)
    with pytest.raises(ClientError, match="rate-limited: wait"):
        ask(tmp_path, ingress)
    assert ingress.calls.count("POST /chat/async") == MAX_RATE_LIMIT_WAITS + 1


def test_without_a_terminal_a_wait_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ingress = Ingress(limits=1)
    monkeypatch.setattr(commands, "AssistantClient", lambda *_, **__: client(tmp_path, ingress))
    monkeypatch.setattr(AssistantClient.ask, "__kwdefaults__", {"sleep": lambda _: None})
    assert commands.chat(tmp_path, {"prompt": "Why?"}, root_password=None, as_json=True) == 0
    assert capsys.readouterr().err == "rate limit: waiting 2 s\n"


def test_a_refusal_is_an_answer_at_once(tmp_path: Path) -> None:
    answer, _ = ask(tmp_path, Ingress(first_status=200))
    assert answer["status"] == "refused"


def test_a_job_that_fails_is_an_error_with_its_code(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="timeout: too slow"):
        ask(tmp_path, Ingress(end={"status": "error", "error": {"code": "timeout", "message": "too slow"}}))


def test_jobs_are_ones_own_also_for_an_admin(tmp_path: Path) -> None:
    asked: list[str] = []

    def ingress(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json={"access_token": "fresh", "items": [{"job_id": "7"}]})

    with AssistantClient(tmp_path, {"ASSISTANT_URL": "http://x", "ASSISTANT_PASSWORD": "secret"},
                         transport=httpx.MockTransport(ingress)) as found:  # fmt: skip
        assert found.jobs(5) == [{"job_id": "7"}]
    assert asked[-1] == "http://x/jobs?limit=5&user_id=root"


def test_the_first_admins_password_comes_from_the_settings_too_and_is_nobody_elses(tmp_path: Path) -> None:
    def of(**environ: str) -> AssistantClient:
        environment = {"ASSISTANT_URL": "http://x", **environ}
        transport = httpx.MockTransport(Ingress())
        return AssistantClient(tmp_path, environment, root_password="secret", transport=transport)

    with of() as found:
        assert found.jobs(5) == [{"job_id": "7"}]
    with of(ASSISTANT_USER="alice") as found, pytest.raises(ClientError, match="set ASSISTANT_PASSWORD"):
        found.jobs(5)


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
