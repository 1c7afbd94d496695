"""Kafka, Postgres, vectors and embeddings by themselves, for tests: to be used, and to be broken on purpose."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from embedded import kafka, postgres
from embedded.embeddings import embeddings_part
from embedded.errors import EmbeddedError
from embedded.part import Part
from embedded.ports import HOST, KeptPorts
from embedded.spawn import spawn
from embedded.vectors import vectors_part

KILLED_WITHIN_S = 60  # the kernel's part: it may have to wait for a disk that others keep busy


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


def start_kafka(home: Path, *, report: Callable[[str], None] = print) -> Running:
    """A broker of its own; blocks until it answers."""
    ports = KeptPorts(home / "ports.json")
    port = ports.get("kafka")
    part = kafka.kafka_part(home, port=port, controller_port=ports.get("kafka-controller"), report=report)
    running = Running(part, home / "kafka.log", bootstrap=f"{HOST}:{port}")
    running.start()
    return running


def start_postgres(home: Path, *, durable: bool = True) -> Running:
    """A database of its own; blocks until it answers.

    Args:
        home: Its folder.
        durable: What it has committed outlives the machine, and not only its own process.
    """
    home.mkdir(parents=True, exist_ok=True)
    part, dsn = postgres.postgres_part(home, port=KeptPorts(home / "ports.json").get("postgres"))
    if not durable:
        part = replace(part, argv=[*part.argv, "-c", "fsync=off"])
    running = Running(part, home / "postgres.log", dsn=dsn)
    running.start()
    return running


def start_vectors(home: Path, *, api_key: str | None = None) -> Running:
    """Vectors of its own; blocks until they answer."""
    home.mkdir(parents=True, exist_ok=True)
    port = KeptPorts(home / "ports.json").get("vectors")
    part, url = vectors_part(home / "vectors", port=port, api_key=api_key)
    running = Running(part, home / "vectors.log", url=url)
    running.start()
    return running


def start_embeddings(home: Path, *, model: str) -> Running:
    """The embedding model by itself; blocks until it answers."""
    home.mkdir(parents=True, exist_ok=True)
    part, url = embeddings_part(port=KeptPorts(home / "ports.json").get("embeddings"), model=model)
    running = Running(part, home / "embeddings.log", url=url)
    running.start()
    return running
