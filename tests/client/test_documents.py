"""`assistant ingest` and `assistant documents`, against an ingress that is a function."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from client import documents as commands
from client.api import AssistantClient
from client.documents import Wanted
from client.following import INTERRUPTED

JOB = str(uuid4())


class Ingress:
    """Answers the calls of uploads. `views`: of a job, one after another; the last one for ever."""

    def __init__(self, *views: dict[str, Any], first: list[httpx.Response] | None = None) -> None:
        self.views = list(views) or [completed()]
        self.first = first or []
        self.calls: list[tuple[str, str]] = []
        self.files: list[bytes] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.calls.append((request.method, str(request.url).removeprefix("http://x")))
        if path == "/auth/login":
            return httpx.Response(200, json={"access_token": "fresh"})
        if request.headers["authorization"] != "Bearer fresh":
            return httpx.Response(401, json={"code": "not-authenticated", "detail": "log in"})
        if path == "/ingestion/ingest":
            self.files.append(request.read())
            return self.first.pop(0) if self.first else httpx.Response(202, json={"job_id": JOB})
        if path == f"/jobs/{JOB}/cancel":
            return httpx.Response(202, json={"job_id": JOB, "status": "cancelling"})
        if path == f"/jobs/{JOB}":
            return httpx.Response(200, json=self.views.pop(0) if len(self.views) > 1 else self.views[0])
        if request.method == "DELETE":
            known = path.endswith("0")
            return httpx.Response(204) if known else httpx.Response(404, json={"code": "not-found", "detail": "none"})
        return httpx.Response(200, json={"items": [DOCUMENT], "next": None})


DOCUMENT = {
    "document_id": "7", "source": "a.txt", "status": "failed", "error": {"code": "document-empty"}, "provider": "local",
    "model": "e5", "updated_at": "now",
}  # fmt: skip


def completed(**more: Any) -> dict[str, Any]:
    return {"status": "completed", "result": {"status": "ok", "document_id": "d", "num_chunks": 3, "pages": 2, **more}}


def failed(code: str, message: str = "it is so", **more: Any) -> dict[str, Any]:
    return {"status": "error", "error": {"code": code, "message": message, **more}}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def with_ingress(ingress: Ingress) -> None:
        def made(home: Path, environ: Any, **more: Any) -> AssistantClient:
            environment = {"ASSISTANT_URL": "http://x", "ASSISTANT_PASSWORD": "secret"}
            return AssistantClient(home, environment, transport=httpx.MockTransport(ingress))

        monkeypatch.setattr(commands, "AssistantClient", made)

    def ingest(ingress: Ingress, *files: Path, sleep: Any = lambda _: None, **wanted: Any) -> int:
        with_ingress(ingress)
        return commands.ingest(tmp_path, Wanted(files, **wanted), root_password=None, sleep=sleep)

    ingest.with_ingress = with_ingress  # type: ignore[attr-defined]
    return ingest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a b.txt"
    path.write_bytes(b"bees" * 100_000)
    return path


def test_a_file_is_sent_whole_and_followed_to_its_end(
    run: Any, file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    working = {"status": "pending", "stage": "embed_chunks", "document": {"pages": 1, "pages_total": 2, "chunks": 1}}
    ingress = Ingress({"status": "pending", "stage": "accepted"}, working, completed())
    (tmp_path / "secrets").mkdir()
    kept = {"url": "http://x", "user": "root", "token": "of another day"}
    (tmp_path / "secrets" / "token.json").write_text(json.dumps(kept))
    assert run(ingress, file, provider="local") == 0
    assert ingress.calls[-4] == ("POST", "/ingestion/ingest?wait=false&provider=local")
    (sent,) = ingress.files  # the first time it was refused, before it was read
    assert b'name="file"; filename="a b.txt"' in sent
    assert file.read_bytes() in sent
    assert "3 chunks, 2 pages (d)" in capsys.readouterr().out


def test_what_is_wrong_with_a_file_is_said_of_it_and_the_others_go_on(
    run: Any, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingress = Ingress(failed("document-encrypted", "send a copy"), completed(unchanged=True))
    assert run(ingress, tmp_path / "none.txt", file, file, as_json=True) == 1
    out, errors = capsys.readouterr()
    assert "none.txt: No such file" in errors
    assert "a b.txt: document-encrypted: send a copy" in errors
    assert json.loads(out)["unchanged"] is True


def test_a_rate_limit_is_waited_out_wherever_it_is_told(run: Any, file: Path) -> None:
    limited = httpx.Response(429, headers={"retry-after": "7"}, json={"code": "rate-limited", "detail": "wait"})
    slept: list[float] = []
    ingress = Ingress(failed("rate-limited", retry_after_s=3), completed(), first=[limited])
    assert run(ingress, file, sleep=slept.append) == 0
    assert slept == [7, 3]
    too_large = httpx.Response(413, json={"code": "file-too-large", "detail": "split it"})
    assert run(Ingress(first=[too_large]), file) == 1


def test_ctrl_c_cancels_the_job_at_hand(run: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    ingress = Ingress({"status": "pending", "stage": "partition_document"})
    assert run(ingress, file, file, sleep=interrupted) == INTERRUPTED
    assert ingress.calls[-1] == ("POST", f"/jobs/{JOB}/cancel")
    assert len(ingress.files) == 1
    assert "interrupted" in capsys.readouterr().err


def test_documents_are_listed_and_deleted(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.with_ingress(ingress := Ingress())
    assert commands.list_documents(tmp_path, root_password=None, limit=3, as_json=False) == 0
    assert ("GET", "/documents?limit=3") in ingress.calls
    assert "a.txt" in capsys.readouterr().out
    assert commands.list_documents(tmp_path, root_password=None, limit=3, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == [DOCUMENT]
    good, bad = uuid4(), uuid4()
    good, bad = type(good)(str(good)[:-1] + "0"), type(bad)(str(bad)[:-1] + "1")
    assert commands.delete_documents(tmp_path, [bad, good], root_password=None) == 1
    assert ("DELETE", f"/documents/{good}") in ingress.calls
    assert f"{bad}: not-found" in capsys.readouterr().err
