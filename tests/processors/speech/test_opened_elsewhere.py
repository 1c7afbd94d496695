"""WAV files of ours as programs of others see them."""

import struct
from pathlib import Path

import pytest

from processors.speech.join_audio import PAUSE_S, Sound, join, read_wav, write_wav
from tests.second_programs import PROGRAMS, is_here
from tests.stand_ins.qwen_tts_api import RATE, tone

JOINED = write_wav(join([read_wav(tone(0.2)) for _ in range(3)]))
TWO_CHANNELS = write_wav(join([Sound(44_100, 2, struct.pack("<2000h", *([9000, -9000] * 1000)))] * 2))


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if not is_here(name):
        pytest.skip(f"{name} is not installed here: apt-get install sox ffmpeg file, or pip install soundfile")
    return name


@pytest.mark.parametrize(
    ("content", "rate", "channels", "seconds"),
    [(JOINED, RATE, 1, 0.6 + 2 * PAUSE_S), (TWO_CHANNELS, 44_100, 2, 2 * 1000 / 44_100 + PAUSE_S)],
)
def test_joined_speech_is_opened_by_others(
    program: str, content: bytes, rate: int, channels: int, seconds: float, tmp_path: Path
) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(content)
    told = PROGRAMS[program](path)
    assert (told.rate, told.channels) == (rate, channels)
    assert told.seconds is None or told.seconds == pytest.approx(seconds, abs=0.001)


def test_a_file_that_promises_more_than_it_holds_is_told_from_a_whole_one(program: str, tmp_path: Path) -> None:
    """So that the tests here can fail."""
    path = tmp_path / "cut.wav"
    path.write_bytes(JOINED[: len(JOINED) // 2])
    whole = 0.6 + 2 * PAUSE_S
    try:
        told = PROGRAMS[program](path)
    except AssertionError:
        return  # it says so
    assert told.seconds is None or told.seconds < whole * 0.6
