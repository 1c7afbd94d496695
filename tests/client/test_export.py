"""`assistant jobs export`, against an ingress that is a function and breaks off."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from client import export as module
from client.api import AssistantClient
from client.export import MAX_CUTS, export, whole_lines

JOBS = [{"job_id": f"j{n}", "accepted_at": f"2026-01-02T03:04:0{n}Z", "result": "a\u2028b"} for n in range(8)]
LINES = [json.dumps(job, ensure_ascii=False).encode() + b"\n" for job in JOBS]


class Broken(httpx.SyncByteStream):
    """Some bytes, and then no end."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self.content), 7):
            yield self.content[at : at + 7]
        raise httpx.RemoteProtocolError("incomplete chunked read")


class Ingress:
    """Answers from the cursor on; `cuts`: after how many bytes each of the first answers breaks off, or a status."""

    def __init__(self, *cuts: int) -> None:
        self.cuts, self.queries = list(cuts), list[dict[str, str]]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/login":
            return httpx.Response(200, json={"access_token": "fresh"})
        if request.headers["authorization"] != "Bearer fresh":
            return httpx.Response(401, json={"code": "not-authenticated", "detail": "log in"})
        query = dict(request.url.params)
        self.queries.append(query)
        cursors = [f"{job['accepted_at']}/{job['job_id']}" for job in JOBS]
        first = cursors.index(query["cursor"]) + 1 if "cursor" in query else 0
        content = b"".join(LINES[first:])
        if not self.cuts:
            return httpx.Response(200, content=content)
        cut = self.cuts.pop(0)
        if cut >= 400 and cut < 600:
            return httpx.Response(cut, json={"code": "no", "detail": "not now"})
        return httpx.Response(200, stream=Broken(content[:cut]))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("client.export.time.sleep", lambda _: None)

    def to(*cuts: int) -> Ingress:
        ingress = Ingress(*cuts)

        def client(home: Path, environ: Any, **_: Any) -> AssistantClient:
            environment = {"ASSISTANT_URL": "http://x", "ASSISTANT_PASSWORD": "p"}
            return AssistantClient(home, environment, transport=httpx.MockTransport(ingress))

        monkeypatch.setattr(module, "AssistantClient", client)
        return ingress

    return to


def run(home: Path, output: Path | None, *, resume: bool = False, **query: str) -> int:
    return export(home, query, output=output, resume=resume, root_password=None)


def test_all_is_written_and_how_much_is_told(
    serve: Any, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    ingress = serve()
    assert run(tmp_path, tmp_path / "out.jsonl", status="completed") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b"".join(LINES)
    assert b"8 jobs" in capfdbinary.readouterr().err
    assert ingress.queries == [{"status": "completed"}]


def test_to_standard_output_there_is_nothing_but_jobs(
    serve: Any, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    serve()
    assert run(tmp_path, None) == 0
    assert capsysbinary.readouterr().out == b"".join(LINES)


@pytest.mark.parametrize("cuts", [(0, 1, 100, 5), (503, 200, 429)])
def test_what_breaks_off_goes_on_by_itself_behind_the_last_whole_line(
    serve: Any, tmp_path: Path, cuts: tuple[int, ...]
) -> None:
    ingress = serve(*cuts)
    assert run(tmp_path, tmp_path / "out.jsonl") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b"".join(LINES)
    assert ingress.cuts == []


def test_it_gives_up_where_nothing_comes_and_says_how_to_go_on(
    serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingress = serve(len(LINES[0]) + 3, *[0] * MAX_CUTS)
    assert run(tmp_path, None) == 1
    assert f"--cursor {JOBS[0]['accepted_at']}/j0" in capsys.readouterr().err.replace("\n", "")
    assert len(ingress.queries) == 1 + MAX_CUTS
    serve(403)
    assert run(tmp_path, None) == 1
    assert "no: not now" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0, 1, len(LINES[0]) - 1, len(LINES[0]), 3 * len(LINES[0]) + 9, 8 * len(LINES[0])])
def test_a_file_is_gone_on_with_behind_its_last_whole_line(
    serve: Any, tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAIL_BYTES", 16)  # lines are longer than what is looked at at once
    serve()
    output = tmp_path / "out.jsonl"
    output.write_bytes(b"".join(LINES)[:kept])
    assert run(tmp_path, output) == 1  # not without being told to
    assert run(tmp_path, output, resume=True) == 0
    assert output.read_bytes() == b"".join(LINES)


@pytest.mark.parametrize("text", ["my thesis\n", "my thesis", '{"chapter": 1}\n{"cha'])
def test_another_file_is_left_as_it_is(
    serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    serve()
    output = tmp_path / "thesis.txt"
    output.write_text(text)
    assert run(tmp_path, output, resume=True) == 1
    assert "not an export's file" in capsys.readouterr().err
    assert output.read_text() == text


def test_lines_end_where_the_server_ends_them_however_they_are_cut() -> None:
    content = b"".join(LINES)
    for size in (1, 2, 3, 50, 10_000):
        assert list(whole_lines(content[at : at + size] for at in range(0, len(content), size))) == LINES
    assert list(whole_lines(iter([b"a\nb"]))) == [b"a\n"]
