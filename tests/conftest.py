"""What tests run on: a real Kafka and a real Postgres, from the environment, from Docker, or embedded."""

import asyncio
import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from pwdlib import PasswordHash

from schemas.topics import Catalog
from tests import one_kafka, own_ports, quick_hashes, quick_trust, scratch
from tests.waiting import until
from transport import admin
from transport.clients import KafkaAccess

# Real providers are off for the whole suite, whatever the developer's environment holds.
OWN = ("OPENAI_", "GEMINI_", "GOOGLE_", "OLLAMA_", "LMSTUDIO_", "QWEN3_VL_", "LOCAL_", "DEFAULT_PROVIDER",
       "ALLOWED_PROVIDERS", "QDRANT_", "JWT_SECRET_KEY", "VAULT_")  # fmt: skip
for name in [name for name in os.environ if name.startswith(OWN)]:
    del os.environ[name]

quick_hashes.use()
quick_trust.use()
own_ports.use()
TEST_PROVIDERS = ("openai", "local")
FIRST = (
    # The longest, two of which mostly wait.
    "tests/chaos/test_short_cut.py", "tests/pipeline/test_outages.py", "tests/pipeline/test_watchdog.py",
    "tests/embedded/test_newcomer.py", "tests/embedded/test_readme.py", "tests/pipeline/test_recover.py",
    "tests/pipeline/test_openapi_fuzz.py", "tests/pipeline/",
    "tests/providers/test_every_adapter.py", "tests/embedded/", "tests/doctor/", "tests/streams/", "tests/providers/",
)  # fmt: skip
# Files whose tests are for one process: what they share takes a minute to start.
TOGETHER = {"tests/embedded/test_readme.py": "tests/embedded/test_newcomer.py"}
LOGS_SHOWN, LOG_TAIL_BYTES = 6, 4_000
SECRET = "a-test-secret-0123456789-abcdefghijklmnopqrstuvwxyz"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: processes share the files, and none is to be left with a long one at the end."""

    def place(item: pytest.Item) -> int:
        return next((n for n, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST))

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what the processes that it had started said last."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and isinstance(folder, Path):
        for log in sorted(folder.glob("*.log"))[:LOGS_SHOWN]:
            with log.open("rb") as opened:
                opened.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
                report.sections.append((f"end of {log.name}", opened.read().decode(errors="replace")))
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As `--dist loadfile` has it, but for what is to be together."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]  # it has no types

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # untyped
        def _split_scope(self, nodeid: str) -> str:
            scope: str = super()._split_scope(nodeid)
            return TOGETHER.get(scope, scope)

    return Scheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """One Kafka for all of them, where there is none yet: at rest, each would take some of the processors."""
    wanted = "not integration" not in config.option.markexpr
    if wanted and "KAFKA_BOOTSTRAP_SERVERS" not in os.environ and not _docker_answers():
        config.add_cleanup(one_kafka.start())


@dataclass(frozen=True)
class KafkaForTests:
    bootstrap: str

    @property
    def access(self) -> KafkaAccess:
        return KafkaAccess(self.bootstrap)


@dataclass(frozen=True)
class PostgresForTests:
    dsn: str


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    import subprocess

    return subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0


@pytest.fixture
def dear_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords cost in this process what they cost in the product."""
    monkeypatch.setattr(PasswordHash, "recommended", quick_hashes.recommended)


@pytest.fixture(scope="session")
def service_home() -> Iterator[Path]:
    home = scratch.folder()
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(service_home: Path) -> Iterator[KafkaForTests]:
    if bootstrap := os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or one_kafka.bootstrap():
        yield KafkaForTests(bootstrap)
        return
    with ExitStack() as stack:
        if _docker_answers():
            from testcontainers.kafka import KafkaContainer

            container = stack.enter_context(KafkaContainer("apache/kafka:4.1.1"))
            yield KafkaForTests(container.get_bootstrap_server())
        else:
            from embedded.services import start_kafka

            running = start_kafka(service_home / "kafka")
            stack.callback(running.stop)
            yield KafkaForTests(running.bootstrap)


@pytest.fixture(scope="session")
def postgres(service_home: Path) -> Iterator[PostgresForTests]:
    if dsn := os.environ.get("DATABASE_URL"):
        yield PostgresForTests(dsn)
        return
    with ExitStack() as stack:
        if _docker_answers():
            from testcontainers.postgres import PostgresContainer

            container = stack.enter_context(PostgresContainer("postgres:18", driver=None))
            yield PostgresForTests(container.get_connection_url())
        else:
            from embedded.services import start_postgres

            running = start_postgres(service_home / "postgres", durable=False)
            stack.callback(running.stop)
            yield PostgresForTests(running.dsn)


@pytest.fixture(scope="session")
def vectors_url(service_home: Path) -> Iterator[str]:
    """For `QDRANT_URL`: ours, without a key. Deployments are kept apart in it by their KAFKA_TOPIC_PREFIX."""
    from embedded.services import start_vectors

    running = start_vectors(service_home / "vectors")
    yield running.url
    running.stop()


@pytest.fixture(scope="session")
def embeddings_url(service_home: Path) -> Iterator[str]:
    """For `LOCAL_EMBEDDING_URL`: the real model."""
    from embedded.services import start_embeddings

    running = start_embeddings(service_home / "embeddings", model="multilingual-e5-small")
    yield running.url
    running.stop()


A_PREFIX = re.compile(r"t[0-9a-f]{10}\.")


def new_prefix() -> str:
    return f"t{uuid.uuid4().hex[:10]}."


async def delete_topics(kafka: KafkaForTests, prefix: str) -> None:
    """A broker with a small heap dies of some thousand partitions: what a test made, it takes away."""
    async with admin.connected(kafka.access) as client:
        names = [name for name in await client.list_topics() if name.startswith(prefix)]
        if names:
            await client.delete_topics(names)


@pytest.fixture
async def topic_prefix(kafka: KafkaForTests) -> AsyncIterator[str]:
    prefix = new_prefix()
    yield prefix
    await delete_topics(kafka, prefix)


@pytest.fixture
async def catalog(kafka: KafkaForTests, topic_prefix: str) -> Catalog:
    catalog = Catalog.load(prefix=topic_prefix)
    await admin.apply(kafka.access, catalog, TEST_PROVIDERS, partitions=4)

    async def as_applied() -> bool:  # a broker hears of a topic a moment after the controller
        return not await admin.plan(kafka.access, catalog, TEST_PROVIDERS, partitions=4)

    await until(as_applied)
    return catalog


@pytest.fixture(scope="session")
def template_database(postgres: PostgresForTests) -> str:
    from sinks.migrate import migrate

    name = f"template_{uuid.uuid4().hex[:10]}"
    asyncio.run(_execute(postgres.dsn, f'CREATE DATABASE "{name}"'))
    asyncio.run(migrate(_with_database(postgres.dsn, name)))
    return name


async def new_database(postgres: PostgresForTests, template: str = "template1") -> str:
    name = f"test_{uuid.uuid4().hex[:10]}"
    await _execute(postgres.dsn, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return _with_database(postgres.dsn, name)


async def drop_database(postgres: PostgresForTests, dsn: str) -> None:
    await _execute(postgres.dsn, f'DROP DATABASE "{urlsplit(dsn).path[1:]}" WITH (FORCE)')


@pytest.fixture
async def database(postgres: PostgresForTests, template_database: str) -> AsyncIterator[str]:
    dsn = await new_database(postgres, template_database)
    yield dsn
    await drop_database(postgres, dsn)


def _with_database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
