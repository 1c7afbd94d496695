"""`assistant say`: a file that is whole or not there."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from client import saying
from client.api import AssistantClient
from tests.stand_ins.qwen_tts_api import tone

WAV = tone(0.1)


def ingress(audio: bytes, size: int, *, asked: list[Any] | None = None) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/auth/login":
            return httpx.Response(200, json={"access_token": "t"})
        if path == "/tts/async":
            if asked is not None:
                asked.append(request.content)
            return httpx.Response(202, json={"job_id": "7"})
        if path == "/jobs/7/audio":
            return httpx.Response(200, content=audio)
        result = {"audio": {"size": size, "seconds": 0.1}, "provider": "p", "speaker": "s", "meta": {"job_id": "7"}}
        return httpx.Response(200, json={"status": "completed", "result": result})

    return httpx.MockTransport(answer)


def said(monkeypatch: pytest.MonkeyPatch, home: Path, output: Path, transport: httpx.MockTransport) -> int:
    environ = {"ASSISTANT_URL": "http://x", "ASSISTANT_PASSWORD": "secret"}
    monkeypatch.setattr(saying, "AssistantClient", lambda *_, **__: AssistantClient(home, environ, transport=transport))
    return saying.say(home, {"prompt": "Hello."}, output, root_password=None)


def test_what_is_said_is_written_to_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    output = tmp_path / "out.wav"
    assert said(monkeypatch, tmp_path, output, ingress(WAV, len(WAV), asked=asked)) == 0
    assert output.read_bytes() == WAV
    assert asked == [b'{"prompt":"Hello."}']
    assert "0.1 s of p, s" in capsys.readouterr().err


def test_what_broke_off_leaves_the_file_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.wav"
    output.write_bytes(b"before")
    assert said(monkeypatch, tmp_path, output, ingress(WAV[:100], len(WAV))) == 1
    assert output.read_bytes() == b"before"
    assert "broke off" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_a_place_that_cannot_be_written_to_costs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    assert said(monkeypatch, tmp_path, tmp_path / "no" / "out.wav", ingress(WAV, len(WAV), asked=asked)) == 1
    assert asked == []
