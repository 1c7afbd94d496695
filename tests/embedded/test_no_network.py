"""Without network and cache there is one clear sentence; from the real fetchers, whose registries cannot be reached."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from embedded.ports import free_port

ROOT = Path(__file__).parent.parent.parent


def without_network(**more: str) -> dict[str, str]:
    """Every way out leads to a port on which nobody listens."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), nowhere)
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "MAKE", "MFLAGS")) and name.lower() != "no_proxy"
    }
    pip = {
        "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": nowhere, "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "1",
        "PIP_TIMEOUT": "1",
    }  # fmt: skip
    return {**clean, **proxies, **pip, **more}


def test_kafkas_jars_that_cannot_be_had_are_one_sentence(tmp_path: Path) -> None:
    environment = without_network(
        ASSISTANT_CACHE=str(tmp_path / "empty"), ASSISTANT_HOME=str(tmp_path / "home"), HOME=str(tmp_path),
        DATABASE_URL="postgresql://127.0.0.1:1/x", ALLOWED_PROVIDERS="openai", INGRESS_PORT="0", COLUMNS="500",
    )  # fmt: skip
    environment.pop("KAFKA_BOOTSTRAP_SERVERS", None)
    done = subprocess.run(
        [sys.executable, "-m", "cli", "up"], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    log = tmp_path / "empty" / "fetch.log"
    (told,) = [line for line in done.stdout.splitlines() if line.startswith("failed:")]
    assert done.stdout.splitlines()[-1] == told
    assert told == (
        "failed: Kafka's jars are not in the cache and could not be fetched: this machine needs its Java package "
        f"registry once, or KAFKA_BOOTSTRAP_SERVERS set to a cluster (the fetcher's own words are in {log})"
    )
    assert done.stderr == ""
    assert log.read_text()
    assert not list((tmp_path / "empty").glob("jars/*"))


def test_packages_that_cannot_be_had_are_one_sentence(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        ["make", "-C", str(tmp_path), "--no-print-directory", f"PYTHON={sys.executable}", "up"],
        env=without_network(HOME=str(tmp_path)), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "making the virtual environment",
        "installing packages (about 1.3 GB on disk, once)",
        "the packages could not be installed: this machine needs its Python package registry once "
        "(pip's own words are in .venv/pip.log)",
    ]
    assert [line for line in done.stderr.splitlines() if not line.startswith("make: ***")] == []
    assert "No matching distribution" in (tmp_path / ".venv" / "pip.log").read_text()
