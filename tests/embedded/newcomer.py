"""Whoever types the commands of `assistant` on a machine that has nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from embedded.home import Home
from embedded.ports import free_port

ROOT = Path(__file__).parent.parent.parent


class Newcomer:
    """Somebody with a fresh home who types commands."""

    def __init__(self, home: Path) -> None:
        port = str(free_port())
        clean = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        # The path: `.venv/bin/assistant` then runs this checkout, wherever its environment was installed from.
        self.home = home
        self.environment = {
            **clean, "ASSISTANT_HOME": str(home), "INGRESS_PORT": port, "PYTHONPATH": str(ROOT),
            "WEBHOOK_ALLOW_PRIVATE": "true",  # receivers are on this machine
            "RATE_LIMIT_ADMIN_REQUESTS": "100",  # several tests in a minute
            "LLM_TIMEOUT": "120",  # the model has as many cores as are left to it
        }  # fmt: skip

    def types(self, *words: str, ok: bool = True) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cli", *words], env=self.environment, cwd=ROOT, capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "cli", "status", "--json"], env=self.environment, cwd=ROOT, capture_output=True,
            text=True, timeout=30, check=False,
        )  # fmt: skip
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def resident(self) -> list[tuple[int, str]]:
        """MB of the supervisor and of each that it has started, the largest first."""
        supervisor = Home(self.home).supervisor()
        assert supervisor is not None
        tree = [supervisor, *supervisor.children(recursive=True)]
        pids = {process.pid for process in tree}
        assert {process["pid"] for process in self.status()["processes"]} < pids
        return sorted(((process.memory_info().rss // 10**6, told(process)) for process in tree), reverse=True)


def told(process: psutil.Process) -> str:
    """The end of its command line."""
    return " ".join(process.cmdline())[-60:] or process.name()
