"""The embedded voice: Piper in a process of its own, through the adapter that workers have."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from embedded.errors import EmbeddedError
from embedded.ports import free_port
from embedded.speech import speech_part, voice_file
from processors.errors import PermanentError
from processors.speech.speech_ports import Voices
from providers.qwen_tts import LOCAL, QwenTtsProvider, make_qwen_tts
from tests.second_programs import PROGRAMS, opened_elsewhere
from tests.waiting import until
from tests.wav import hear

ROOT = Path(__file__).parent.parent.parent
TEXT = "The quick brown fox jumps over the lazy dog."


@dataclass
class Voice:
    url: str
    pid: int


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Voice]:
    part, url = speech_part(port=free_port())
    log = tmp_path_factory.mktemp("speech") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(part.argv, env=dict(os.environ), cwd=part.cwd, stdout=output, stderr=output)

    async def ready() -> bool:
        assert process.poll() is None, log.read_text()
        return await part.healthy()

    asyncio.run(until(ready, within_s=60))
    yield Voice(url, process.pid)
    process.terminate()
    assert process.wait(10) in (0, -15)


@pytest.fixture
async def provider(voice: Voice) -> AsyncIterator[QwenTtsProvider]:
    provider = make_qwen_tts(base_url=voice.url, connections=2, name=LOCAL)
    yield provider
    await provider.close()


async def say(provider: QwenTtsProvider, text: str, speaker: str = "joe") -> bytes:
    return await provider.speak(text, speaker=speaker, language="English", instruct=None, timeout_s=30)


@pytest.mark.integration
async def test_a_text_is_heard_as_long_as_it_takes_to_say(provider: QwenTtsProvider) -> None:
    assert await provider.voices() == Voices(("joe",), ("Auto", "English"))
    short, both = [hear(await say(provider, text)) for text in (TEXT, f"{TEXT} {TEXT}")]
    assert (short.rate, short.channels) == (22_050, 1)
    assert 1.5 < short.seconds < 5
    assert 1.6 < both.seconds / short.seconds < 2.4
    assert short.loudest > 3000


@pytest.mark.integration
async def test_what_it_says_is_opened_by_programs_of_others(provider: QwenTtsProvider, tmp_path: Path) -> None:
    said = await say(provider, TEXT)
    told = opened_elsewhere(said, tmp_path)
    if not told:
        pytest.skip(f"none of {', '.join(PROGRAMS)} is installed here")
    for name, one in told.items():
        assert (one.rate, one.channels) == (22_050, 1), name
        assert one.seconds is None or one.seconds == pytest.approx(hear(said).seconds, abs=0.001), name


@pytest.mark.integration
async def test_what_it_cannot_say_is_refused(provider: QwenTtsProvider, voice: Voice) -> None:
    with pytest.raises(PermanentError):
        await say(provider, TEXT, speaker="Vivian")
    with pytest.raises(PermanentError):
        await say(provider, "x" * 1001)
    async with httpx.AsyncClient(base_url=voice.url, trust_env=False) as client:
        for body in (b"", b"[]", b'{"text": 1}', b'"' + b"x" * 70_000 + b'"'):
            assert (await client.post("/tts/custom_voice", content=body)).status_code == 400
    assert hear(await say(provider, "...")).seconds < 1


@pytest.mark.integration
async def test_it_listens_on_this_machine_only(voice: Voice) -> None:
    import psutil

    listening = [one.laddr.ip for one in psutil.Process(voice.pid).net_connections() if one.status == "LISTEN"]
    assert listening == ["127.0.0.1"]


def test_nothing_of_ours_imports_it() -> None:
    code = (
        "import sys, importlib, pkgutil\n"
        "import cli, embedded.supervisor, embedded.speech, streams.worker, streams.speech, ingress.app\n"
        "import providers.qwen_tts\n"
        "raise SystemExit(sum(name.partition('.')[0] in ('piper', 'onnxruntime') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_where_it_is_not_installed_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedded.speech.VOICE", "no_such_voice")
    with pytest.raises(EmbeddedError, match="LOCAL_SPEECH_URL"):
        voice_file()
