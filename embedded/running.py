"""A part that runs by itself, outside the supervisor."""

import asyncio
import contextlib
import subprocess
import time
from pathlib import Path

from embedded.errors import EmbeddedError
from embedded.part import Part
from embedded.spawn import KILLED_WITHIN_S, spawn


class Running:
    """A part that runs, outside the supervisor. `bootstrap` of a broker, `dsn` of a database, `url` of others."""

    def __init__(self, part: Part, log: Path, *, bootstrap: str = "", dsn: str = "", url: str = "") -> None:
        self.bootstrap, self.dsn, self.url, self._part, self._log = bootstrap, dsn, url, part, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process as it runs now."""
        if self._process is None:
            raise RuntimeError("it does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it on its port and data; returns once it answers.

        Raises:
            EmbeddedError: It ended or did not answer in time; with the tail of its log.
        """
        with self._log.open("ab") as log:
            self._process = spawn(self._part, stdout=log)
        deadline = time.monotonic() + self._part.start_timeout_s
        while not asyncio.run(_healthy(self._part)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise EmbeddedError(f"{self._part.name} did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in its own way; may be called twice."""
        if self._process is None:
            return
        self._process.send_signal(self._part.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._part.stop_timeout_s)
        self.kill()

    def kill(self) -> None:
        """kill -9; may be called twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(KILLED_WITHIN_S)
            self._process = None


async def _healthy(part: Part) -> bool:
    try:
        return await asyncio.wait_for(part.healthy(), 5)
    except TimeoutError:
        return False
