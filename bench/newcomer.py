"""What a newcomer waits for: `up` in a fresh home with a warm cache, the first answer, and what all of it takes."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import Row
from embedded.home import Home
from embedded.kafka_jars import ensure_jars
from embedded.ports import free_port
from tests.deployment import ROOT

OWN = (
    "KAFKA_",
    "DATABASE_URL",
    "DB_",
    "OPENAI_",
    "ALLOWED_PROVIDERS",
    "DEFAULT_PROVIDER",
    "LOCAL_",
    "GEMINI_",
    "OLLAMA_",
    "LMSTUDIO_",
    "QWEN3_VL_",
)


def newcomer() -> list[Row]:
    """Everything embedded, the local model included; nothing of it is left."""
    ensure_jars(print)  # what is fetched once is not what is measured
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        Path(folder).chmod(0o755)  # Postgres runs as somebody else where we are root
        clean = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
        environment = {**clean, "ASSISTANT_HOME": str(home), "INGRESS_PORT": str(free_port())}
        try:
            up = _timed(environment, "up", "--detach")
            supervisor = Home(home).supervisor()
            assert supervisor is not None
            first = _timed(environment, "chat", "Why is the sky blue?", "--max-tokens", "20")
            tree = [supervisor, *supervisor.children(recursive=True)]
            resident = sum(process.memory_info().rss for process in tree)
        finally:
            _timed(environment, "down", "--delete-data")
    return [
        ("up in a fresh home, warm cache, until all is ready", f"{up:.1f} s", "20 s"),
        ("the first answer of the local model, 20 tokens", f"{first:.1f} s", "5 s"),
        (f"resident, the supervisor and all it has started ({len(tree)})", f"{resident / 1e6:.0f} MB", "1,700 MB"),
    ]


def _timed(environment: dict[str, str], *words: str) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "cli", *words], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return time.perf_counter() - began
