"""What a worker knows of cancelled jobs before it serves anything, and afterwards."""

import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic

from schemas.events import Job
from streams.cancellation_log import CancellationLog
from streams.cancellations import KEPT_MS, Cancellations
from tests.conftest import KafkaForTests
from tests.factories import job, job_cancel_requested
from tests.waiting import until

pytestmark = pytest.mark.integration


class Topic:
    """One whose records have the times that the test gives them."""

    def __init__(self, kafka: KafkaForTests, name: str, producer: AIOKafkaProducer) -> None:
        self.kafka, self.name, self._producer = kafka, name, producer

    async def ask(self, of: Job, *, age_ms: int = 0, partition: int | None = None) -> None:
        value = job_cancel_requested(job_id=of.job_id).model_dump_json().encode()
        await self.write(value, age_ms=age_ms, partition=partition)

    async def write(self, value: bytes | None, *, age_ms: int = 0, partition: int | None = None) -> None:
        at = int(time.time() * 1000) - age_ms
        await self._producer.send_and_wait(self.name, value, key=uuid4().bytes, timestamp_ms=at, partition=partition)


@pytest.fixture
async def topic(kafka: KafkaForTests, topic_prefix: str) -> AsyncIterator[Topic]:
    name = f"{topic_prefix}job-cancel-requested"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 3, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, metadata_max_age_ms=500) as producer:
        yield Topic(kafka, name, producer)


@pytest.fixture
async def log(topic: Topic) -> AsyncIterator[tuple[CancellationLog, Cancellations]]:
    cancellations = Cancellations({})
    log = CancellationLog(topic.kafka.access, topic.name, cancellations)
    yield log, cancellations
    await log.stop()
    await log.stop()


async def test_all_of_the_last_day_is_known_once_it_has_started_and_the_rest_is_followed(
    topic: Topic, log: tuple[CancellationLog, Cancellations]
) -> None:
    reader, cancellations = log
    jobs = [job() for _ in range(30)]
    old = job()
    await topic.ask(old, age_ms=KEPT_MS + 60_000, partition=0)
    for of in jobs:
        await topic.ask(of, age_ms=KEPT_MS - 60_000)
    for unreadable in (b"{", b"\xff", None, b'{"job_id": "7"}'):
        await topic.write(unreadable)
    assert reader.problem is not None
    await reader.start()
    assert reader.problem is None
    assert all(cancellations.is_cancelled(of) for of in jobs)
    assert len(cancellations) == 30  # not the old one: it was not even read
    late = job()
    await topic.ask(late)
    await until(lambda: cancellations.is_cancelled(late))


async def test_partitions_that_are_added_are_read_too(
    topic: Topic, log: tuple[CancellationLog, Cancellations], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, cancellations = log
    options = {**topic.kafka.access.options(), "metadata_max_age_ms": 500}
    monkeypatch.setattr(type(topic.kafka.access), "options", lambda self: options)
    await reader.start()
    admin = AIOKafkaAdminClient(bootstrap_servers=topic.kafka.bootstrap)
    await admin.start()
    await admin.create_partitions({topic.name: NewPartitions(total_count=4)})
    await admin.close()
    of = job()

    async def sent() -> bool:
        return len(await topic._producer.partitions_for(topic.name)) == 4

    await until(sent)
    await topic.ask(of, partition=3)
    await until(lambda: cancellations.is_cancelled(of))
