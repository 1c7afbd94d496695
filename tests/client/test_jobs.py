"""`assistant jobs delete`, against an ingress that is a function."""

import json
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from client import commands
from client.api import AssistantClient

THERE, RUNNING, NOT_THERE = (UUID(int=n) for n in (1, 2, 3))
REPLIES = {
    THERE: httpx.Response(204),
    RUNNING: httpx.Response(409, json={"code": "not-finished", "detail": "cancel it first"}),
    NOT_THERE: httpx.Response(404, json={"code": "not-found", "detail": "there is no such thing"}),
}


def ingress(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/auth/login":
        return httpx.Response(200, json={"access_token": json.loads(request.content)["password"]})
    assert request.method == "DELETE"
    return REPLIES[UUID(request.url.path.removeprefix("/jobs/"))]


def test_each_job_is_deleted_and_those_that_cannot_be_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def client(home: Path, environ: object, *, root_password: str | None) -> AssistantClient:
        environment = {"ASSISTANT_URL": "http://x", "ASSISTANT_PASSWORD": root_password or ""}
        return AssistantClient(home, environment, transport=httpx.MockTransport(ingress))

    monkeypatch.setattr(commands, "AssistantClient", client)
    assert commands.delete_jobs(tmp_path, [THERE], root_password="secret") == 0
    assert capsys.readouterr() == ("", "")
    assert commands.delete_jobs(tmp_path, [RUNNING, NOT_THERE, THERE], root_password="secret") == 1
    told = capsys.readouterr().err
    assert "cancel it first" in told
    assert "there is no such thing" in told
    assert str(THERE) not in told
