"""What others' programs and libraries say of a WAV file: those that are here; the product uses none."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Told:
    """`seconds`: None where the program does not say."""

    rate: int
    channels: int
    seconds: float | None


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


def by_sox(path: Path) -> Told:
    """It plays all of the file into nothing and counts what it has heard; a header that promises more is an error."""
    done = subprocess.run(
        ["sox", "-V2", str(path), "-n", "stat"], check=True, capture_output=True, text=True, timeout=20
    )
    assert "WARN" not in done.stderr, done.stderr
    (seconds,) = re.findall(r"Length \(seconds\):\s+([\d.]+)", done.stderr)
    rate, channels = (int(_said("sox", "--i", option, str(path))) for option in ("-r", "-c"))
    return Told(rate, channels, float(seconds))


def by_ffprobe(path: Path) -> Told:
    """FFmpeg's reader."""
    told = json.loads(_said("ffprobe", "-v", "error", "-show_streams", "-of", "json", str(path)))
    (stream,) = told["streams"]
    assert stream["codec_name"] == "pcm_s16le"
    return Told(int(stream["sample_rate"]), stream["channels"], float(stream["duration"]))


def by_soundfile(path: Path) -> Told:
    """libsndfile, every sample of it."""
    import soundfile  # type: ignore[import-not-found]  # where it is installed: no dependency of ours

    samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
    return Told(rate, samples.shape[1], len(samples) / rate)


def by_file(path: Path) -> Told:
    """What desktops tell kinds of files by."""
    told = _said("file", "--brief", str(path))
    found = re.search(r"WAVE audio, Microsoft PCM, 16 bit, (mono|stereo) (\d+) Hz", told)
    assert found, told
    return Told(int(found[2]), 1 if found[1] == "mono" else 2, None)


PROGRAMS: dict[str, Callable[[Path], Told]] = {
    "sox": by_sox, "ffprobe": by_ffprobe, "soundfile": by_soundfile, "file": by_file,
}  # fmt: skip


def is_here(program: str) -> bool:
    """Whether this machine has it."""
    return bool(importlib.util.find_spec(program) if program == "soundfile" else shutil.which(program))


def opened_elsewhere(content: bytes, folder: Path) -> dict[str, Told]:
    """What each of those that are here says of a file."""
    path = folder / "speech.wav"
    path.write_bytes(content)
    return {name: tell(path) for name, tell in PROGRAMS.items() if is_here(name)}
