import asyncio
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from tests.conftest import (
    KafkaForTests,
    PostgresForTests,
    delete_topics,
    drop_database,
    new_database,
    new_prefix,
)
from tests.deployment import ROOT, Deployment, Process, client_of, plain_client
from tests.forks import Forks
from tests.stand_ins.openai_api import OpenAIStandIn


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    forks.close()


def environment(base_url: str) -> dict[str, str]:
    return {"ALLOWED_PROVIDERS": '["openai", "local"]', "OPENAI_API_KEY": "stand-in", "OPENAI_BASE_URL": base_url}


@pytest.fixture
async def api() -> AsyncIterator[OpenAIStandIn]:
    async with OpenAIStandIn() as api:
        yield api


@pytest.fixture
async def deployment(
    kafka: KafkaForTests, database: str, topic_prefix: str, tmp_path: Path, api: OpenAIStandIn, forks: Forks
) -> AsyncIterator[Deployment]:
    """Set up, nothing started; for tests that kill and stop."""
    deployment = Deployment(kafka, database, topic_prefix, tmp_path, environment(api.base_url), forks=forks)
    await deployment.set_up(partitions=4)
    yield deployment
    deployment.close()


@dataclass
class Hook:
    """A webhook endpoint. `calls`: headers (names in small letters) and body of each."""

    url: str
    calls: list[tuple[dict[str, str], bytes]]


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    calls: list[tuple[dict[str, str], bytes]] = []

    async def receive(request: web.Request) -> web.Response:
        calls.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Hook(f"http://127.0.0.1:{runner.addresses[0][1]}/hook", calls)
    await runner.cleanup()


@dataclass
class Running:
    """A deployment that runs for all tests of a module, with the stand-in as a process of its own."""

    deployment: Deployment
    ingress: Process
    worker: Process
    api_url: str

    def counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = httpx.get(self.api_url.removesuffix("/v1") + "/counts").json()
        return counts

    def release(self) -> None:
        """Let all that is held be answered."""
        httpx.get(self.api_url.removesuffix("/v1") + "/release")

    def asked(self) -> dict[str, Any]:
        """The newest completion's body."""
        asked: dict[str, Any] = httpx.get(self.api_url.removesuffix("/v1") + "/asked").json()
        return asked

    def calls(self) -> dict[str, int]:
        calls: dict[str, int] = self.counts()["calls"]
        return calls


@pytest.fixture(scope="module")
def running(
    kafka: KafkaForTests, postgres: PostgresForTests, template_database: str, forks: Forks,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:  # fmt: skip
    prefix, dsn = new_prefix(), asyncio.run(new_database(postgres, template_database))
    api = subprocess.Popen(
        [sys.executable, "-m", "tests.stand_ins.openai_api"], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )  # fmt: skip
    assert api.stdout is not None
    url = api.stdout.readline().strip()
    assert re.match(r"http://127", url)
    folder = tmp_path_factory.mktemp("running")
    surroundings = {**environment(url), "ASSISTANT_HOME": str(folder), "QDRANT_PATH": str(folder / "vectors")}
    surroundings["ADMISSION_WAIT_MS"] = "1000"  # a verdict comes as soon as the gate has it, on a slow machine later
    deployment = Deployment(kafka, dsn, prefix, folder, surroundings, forks=forks)
    asyncio.run(deployment.set_up(partitions=4))
    ingress, worker = deployment.start("ingress"), deployment.worker("gate,completion,retrieval,agent,ingestion,sink")
    deadline = time.monotonic() + 60
    while not (asyncio.run(ingress.is_ready()) and asyncio.run(worker.is_ready())):
        assert time.monotonic() < deadline, ingress.log.read_text() + worker.log.read_text()
        time.sleep(0.1)
    yield Running(deployment, ingress, worker, url)
    deployment.close()
    api.kill()
    api.wait(10)
    api.stdout.close()
    asyncio.run(delete_topics(kafka, prefix))
    asyncio.run(drop_database(postgres, dsn))


@pytest.fixture(scope="module")
def other(running: Running) -> Iterator[Process]:
    """A second replica, at which wrong passwords are not slowed down so soon."""
    replica = running.deployment.start("ingress", LOGIN_FAILURES_PER_MIN="1000")
    asyncio.run(running.deployment.ready(replica))
    yield replica
    replica.kill()


@pytest.fixture
async def here(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    """The admin, at the first replica."""
    async with client_of(running.ingress) as client:
        yield client


@pytest.fixture
async def there(other: Process) -> AsyncIterator[httpx.AsyncClient]:
    """Nobody, at the second one."""
    async with plain_client(base_url=other.http, timeout=60) as client:
        yield client
