"""The product as processes: workers and ingress replicas that tests start, kill and stop."""

import asyncio
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from embedded.ports import free_port
from schemas.topics import Catalog
from settings import Settings
from tests.conftest import SECRET, KafkaForTests
from tests.forks import Forked, Forks
from tests.waiting import until

ROOT = Path(__file__).parent.parent
PASSWORD = "correct horse battery"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def plain_client(**options: Any) -> httpx.AsyncClient:
    """For plain http: to load the authorities of https anew takes 36 ms, in which nothing else starts here."""
    return httpx.AsyncClient(verify=NO_TLS, trust_env=False, **options)


@dataclass
class Process:
    """One of the product's processes."""

    name: str
    popen: "subprocess.Popen[bytes] | Forked"
    http: str
    log: Path

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(10)

    async def stop(self, within_s: float = 45) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.popen.wait, within_s)

    async def metric(self, name: str, *labels: str) -> float:
        """The sum of a counter over those of its lines that have these label values."""
        async with plain_client(timeout=5) as client:
            lines = (await client.get(f"{self.http}/metrics")).text.splitlines()
        found = [line for line in lines if line.startswith(name) and all(f'"{label}"' in line for label in labels)]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    async def is_ready(self) -> bool:
        assert self.popen.poll() is None, f"{self.name} ended: {self.log.read_text()[-3000:]}"
        async with plain_client(timeout=5) as client:
            with suppress(httpx.HTTPError):
                return (await client.get(f"{self.http}/readyz")).status_code == 200
        return False


@dataclass
class Deployment:
    """A namespace of topics and a database of its own on the shared Kafka and Postgres."""

    kafka: KafkaForTests
    dsn: str
    prefix: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    forks: Forks | None = None

    @property
    def catalog(self) -> Catalog:
        return Catalog.load(prefix=self.prefix)

    def _environment(self, extra: dict[str, str]) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        return {
            **clean, "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap, "KAFKA_TOPIC_PREFIX": self.prefix,
            "DATABASE_URL": self.dsn, "JWT_SECRET_KEY": SECRET, "ROOT_USR_PASS": PASSWORD,
            "RATE_LIMIT_USER_REQUESTS": "100000", "RATE_LIMIT_ADMIN_REQUESTS": "100000",
            "WEBHOOK_ALLOW_PRIVATE": "true", "MAX_RETRIES": "1", **self.environment, **extra,
        }  # fmt: skip

    async def set_up(self, *, partitions: int | None) -> None:
        """As `assistant setup`, but for its process."""
        from ingress.bootstrap import set_up

        given = {name.lower(): value for name, value in self._environment({}).items()}
        known = {name: given[name] for name in Settings.model_fields if name in given}
        await set_up(Settings(_env_file=None, **known), partitions=partitions, report=lambda _: None)  # type: ignore[arg-type]  # of the environment

    def run(self, *words: str, **extra: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "cli", *words], env=self._environment(extra), cwd=ROOT, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip

    def start(self, *words: str, module: str = "cli", **extra: str) -> Process:
        """`module`: what is run with these words; the command itself, or one that breaks it on purpose."""
        port = free_port()
        name = f"{'-'.join(words)}-{len(self.processes)}"
        log = self.folder / f"{name}.log"
        ports = {"INGRESS_PORT": str(port), "WORKER_HTTP_PORT": str(port)}
        environment = self._environment(ports | extra)
        log.touch()
        popen: subprocess.Popen[bytes] | Forked
        if self.forks is not None:
            popen = self.forks.start(module, words, environment=environment, log=log)
        else:
            with log.open("wb") as output:
                popen = subprocess.Popen(
                    [sys.executable, "-m", module, *words], env=environment, cwd=ROOT, stdout=output,
                    stderr=subprocess.STDOUT,
                )  # fmt: skip
        process = Process(name, popen, f"http://127.0.0.1:{port}", log)
        self.processes.append(process)
        return process

    def worker(self, roles: str, **extra: str) -> Process:
        return self.start("worker", "--roles", roles, **extra)

    async def ready(self, *processes: Process, within_s: float = 60) -> None:
        for process in processes or self.processes:
            if process.popen.poll() is None:
                await until(process.is_ready, within_s=within_s)

    def close(self) -> None:
        """End all, and look through what they have written for what must not be there."""
        for process in self.processes:
            process.popen.kill()
            process.popen.wait(10)
        password = urlsplit(self.dsn).password or PASSWORD
        for process in self.processes:
            log = process.log.read_text(errors="replace")
            assert not any(secret in log for secret in (SECRET, PASSWORD, password)), process.log

    # --- looking at what came of it ---

    async def rows(self) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetch("SELECT * FROM jobs")  # type: ignore[no-any-return]
        finally:
            await connection.close()

    async def finished_rows(self) -> dict[UUID, asyncpg.Record]:
        return {row["job_id"]: row for row in await self.rows() if row["status"] != "pending"}

    async def records(self, topic: str) -> list[Any]:
        """All that is in a topic now."""
        consumer = AIOKafkaConsumer(
            self.prefix + topic, bootstrap_servers=self.kafka.bootstrap, auto_offset_reset="earliest"
        )  # fmt: skip
        await consumer.start()
        try:
            ends = await consumer.end_offsets(list(consumer.assignment()))
            found: list[Any] = []
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
            return found
        finally:
            await consumer.stop()

    async def publish(
        self, topic: str, value: bytes, key: bytes = b"k", headers: list[tuple[str, bytes]] | None = None
    ):
        async with AIOKafkaProducer(bootstrap_servers=self.kafka.bootstrap) as producer:
            await producer.send_and_wait(self.prefix + topic, value, key=key, headers=headers or [])


@asynccontextmanager
async def client_of(
    ingress: Process, user_id: str = "root", password: str = PASSWORD
) -> AsyncIterator[httpx.AsyncClient]:
    """A client that is logged in."""
    limits = httpx.Limits(max_connections=500)
    async with plain_client(base_url=ingress.http, timeout=60, limits=limits) as client:
        reply = await client.post("/auth/login", json={"user_id": user_id, "password": password})
        assert reply.status_code == 200, reply.text
        client.headers["authorization"] = f"Bearer {reply.json()['access_token']}"
        yield client


async def register(admin: httpx.AsyncClient, user_id: str, *, role: str = "user") -> dict[str, str]:
    """A new user; headers to be one."""
    reply = await admin.post("/auth/register", json={"user_id": user_id, "password": PASSWORD, "role": role})
    assert reply.status_code == 201, reply.text
    return {"authorization": f"Bearer {reply.json()['access_token']}"}
