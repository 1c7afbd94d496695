"""The embedded Kafka and Postgres keep their data over kill -9."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from embedded import kafka_jars
from embedded.errors import EmbeddedError
from embedded.services import start_kafka, start_postgres

pytestmark = pytest.mark.integration


def test_what_is_acknowledged_survives_kill_9_on_the_same_ports(service_home: Path) -> None:
    home = service_home / "durable"
    home.mkdir()
    kafka, postgres = start_kafka(home / "kafka"), start_postgres(home / "postgres")
    try:

        async def write() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
            await admin.start()
            await admin.create_topics([NewTopic("kept", 1, 1)])
            await admin.close()
            async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all") as producer:
                await producer.send_and_wait("kept", b"record")
            connection = await asyncpg.connect(postgres.dsn)
            await connection.execute("CREATE TABLE kept AS SELECT 'row' AS what")
            await connection.close()

        async def read() -> tuple[bytes | None, str]:
            consumer = AIOKafkaConsumer("kept", bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
            await consumer.start()
            record = await asyncio.wait_for(consumer.getone(), 20)
            await consumer.stop()
            connection = await asyncpg.connect(postgres.dsn)
            row: str = await connection.fetchval("SELECT what FROM kept")
            await connection.close()
            return record.value, row

        asyncio.run(write())
        for service in (kafka, postgres):
            service.kill()
            service.start()
        assert asyncio.run(read()) == (b"record", "row")
    finally:
        kafka.stop()
        postgres.stop()


def test_a_jar_that_is_not_the_locked_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSISTANT_CACHE", str(tmp_path / "cache"))

    def fetch(repository: Path, work: Path, cache: Path) -> None:
        for name in kafka_jars._locked():
            repository.mkdir(exist_ok=True)
            (repository / name).write_bytes(b"something else")

    monkeypatch.setattr(kafka_jars, "_fetch", fetch)
    with pytest.raises(EmbeddedError, match="SHA-256 differs"):
        kafka_jars.ensure_jars(lambda _: None)
