"""Following topics from where they end; on a real topic."""

from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from schemas.topics import Catalog
from tests.conftest import KafkaForTests
from tests.waiting import until
from transport.following import Following

pytestmark = pytest.mark.integration


async def test_partitions_that_are_added_are_followed_from_their_first_record(
    kafka: KafkaForTests, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, taken = catalog.full_name("completion-streamed"), list[bytes]()
    begun: list[dict[TopicPartition, int]] = []
    options = {**kafka.access.options(), "metadata_max_age_ms": 2000}
    monkeypatch.setattr(type(kafka.access), "options", lambda self: options)

    def take(record: Any) -> None:
        taken.append(record.value)
        if record.value == b"bad":
            raise ValueError("a bug")

    following = Following(kafka.access, (topic,), take, what="answers", begun=lambda: begun.append(following.next))
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, metadata_max_age_ms=200) as producer:
        await producer.send_and_wait(topic, b"before", key=b"k")
        following.start()
        await until(lambda: following.problem is None)
        for value in (b"1", b"bad", b"2"):  # what cannot be taken is passed over, and nothing beside it
            await producer.send_and_wait(topic, value, key=b"k")
        await until(lambda: taken == [b"1", b"bad", b"2"])
        count = len(following.next)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.create_partitions({topic: NewPartitions(total_count=count + 1)})
        await admin.close()

        async def is_there() -> bool:
            return len(await producer.partitions_for(topic)) == count + 1

        await until(is_there)
        await producer.send_and_wait(topic, b"3", key=b"k", partition=count)  # most likely before it is noticed
        await until(lambda: taken[3:] == [b"3"])
        await producer.send_and_wait(topic, b"4", key=b"k", partition=count)
        await until(lambda: taken[3:] == [b"3", b"4"])
    assert len(begun) == 1
    await following.stop()
    await following.stop()
