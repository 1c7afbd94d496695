"""Where it is measured: one Kafka, one Postgres, one stand-in of a provider, and deployments on them."""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedded.running import Running
from embedded.services import start_kafka, start_postgres
from tests.conftest import KafkaForTests, PostgresForTests, delete_topics, drop_database, new_database, new_prefix
from tests.deployment import ROOT, Deployment

PARTITIONS = 4
OURS = ("ingress", "gate", "completion", "sink")
USERS = tuple(f"bench-{n}" for n in range(16))  # so that every partition of the entry has some


@dataclass(frozen=True)
class Place:
    """What all measurements share. `api_url`: of the stand-in, ends in `/v1`."""

    kafka: Running
    postgres: Running
    home: Path
    api_url: str
    api: "subprocess.Popen[str]"

    @asynccontextmanager
    async def deployment(self, **environment: str) -> AsyncIterator[Deployment]:
        """Topics and a database of its own, with the admin and USERS known; gone afterwards."""
        kafka, postgres = KafkaForTests(self.kafka.bootstrap), PostgresForTests(self.postgres.dsn)
        dsn = await new_database(postgres, "template1")
        settings = {
            "ALLOWED_PROVIDERS": "openai", "OPENAI_API_KEY": "stub", "OPENAI_BASE_URL": self.api_url, **environment,
        }  # fmt: skip
        deployment = Deployment(kafka, dsn, new_prefix(), self.home, settings)
        try:
            done = await asyncio.to_thread(deployment.run, "setup", "--partitions", str(PARTITIONS))
            if done.returncode:
                raise RuntimeError(done.stdout + done.stderr)
            for user in USERS:
                value = {"user_id": user, "role": "user", "rate_limit_requests": 1_000_000}
                await deployment.publish("user-updated", json.dumps(value).encode(), user.encode())
            yield deployment
        finally:
            deployment.close()
            await delete_topics(kafka, deployment.prefix)
            await drop_database(postgres, dsn)

    def pids(self, deployment: Deployment) -> dict[str, list[int]]:
        """Process ids by what they are: OURS, and what they work with."""
        ours: dict[str, list[int]] = {name: [] for name in OURS}
        for process in deployment.processes:
            ours[next(name for name in OURS if name in process.name)].append(process.popen.pid)
        return {**ours, "Kafka": [self.kafka.pid], "Postgres": [self.postgres.pid], "stub": [self.api.pid]}


@contextmanager
def place() -> Iterator[Place]:
    """Start all of it; nothing of it is left."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home.chmod(0o755)  # Postgres runs as somebody else where we are root
        kafka, postgres = start_kafka(home / "kafka"), start_postgres(home / "postgres")
        stack.callback(postgres.stop)
        stack.callback(kafka.stop)
        api = subprocess.Popen(
            [sys.executable, "-m", "tests.stand_ins.openai_api"], stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        stack.callback(api.wait)
        stack.callback(api.kill)
        assert api.stdout is not None
        yield Place(kafka, postgres, home, api.stdout.readline().strip(), api)
