"""One part as it runs: started, watched, started again."""

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections import deque
from pathlib import Path

from embedded.home import PartState
from embedded.part import Part
from embedded.spawn import KILLED_WITHIN_S, spawn

MAX_LOG_BYTES, KEPT_LOG_BYTES = 10_000_000, 1_000_000
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 10.0
DEATHS, DEATHS_WITHIN_S = 5, 60.0
HEALTH_TIMEOUT_S = 5.0


class Child:
    """Owned by the supervisor's loop, which runs in the main thread."""

    def __init__(self, part: Part, log: Path) -> None:
        self.part, self.log = part, log
        self.state = PartState(part.name, http=part.http)
        self.process: subprocess.Popen[bytes] | None = None
        self._deaths: deque[float] = deque(maxlen=DEATHS)
        self._start_at = 0.0
        self.started_at = 0.0

    def start(self) -> None:
        """Start it now."""
        with self.log.open("ab") as log:
            self.process = spawn(self.part, stdout=log)
        self.started_at = time.monotonic()
        self.state.pid = self.process.pid
        self.state.state = "starting"

    def watch(self) -> bool:
        """Start it again where it died; False once it has died five times in a minute."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            self._deaths.append(now)
            self.state.note = f"ended with {self.process.returncode}"
            self.process, self.state.pid, self.state.state = None, None, "restarting"
            recent = [death for death in self._deaths if now - death < DEATHS_WITHIN_S]
            if len(recent) >= DEATHS:
                return False
            self._start_at = now + min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (len(recent) - 1))
        if self.process is None and now >= self._start_at:
            self.state.restarts += 1
            self.start()
        return True

    async def check(self) -> None:
        """Ask whether it does its work."""
        healthy = False
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(TimeoutError):
                healthy = await asyncio.wait_for(self.part.healthy(), HEALTH_TIMEOUT_S)
        if healthy:
            self.state.state, self.state.note = "ready", ""
        elif self.state.state == "ready":
            self.state.state = "starting"

    def bound_log(self) -> None:
        """Keep its log small: it writes in append mode, so it may be cut under it."""
        try:
            size = self.log.stat().st_size
        except OSError:
            return
        if size > MAX_LOG_BYTES:
            with self.log.open("rb") as file:
                file.seek(size - KEPT_LOG_BYTES)
                self.log.with_suffix(".log.1").write_bytes(file.read(KEPT_LOG_BYTES))  # its writer goes on meanwhile
            with self.log.open("r+b") as file:
                file.truncate(0)

    def tail(self, lines: int = 15) -> str:
        """The end of its log, for people."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    async def stop(self) -> None:
        """Ask it to finish; then make it."""
        process, self.process = self.process, None
        self.state.state = "stopping"
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(self.part.stop_signal)
        deadline = time.monotonic() + self.part.stop_timeout_s
        while process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        if process.poll() is None:
            process.kill()
        await asyncio.to_thread(process.wait, KILLED_WITHIN_S)
        self.state.pid = None


def remove_tree(folder: Path) -> None:
    """A folder and all in it, where it is there."""
    shutil.rmtree(folder, ignore_errors=True)
