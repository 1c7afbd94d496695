"""What there is to compare with: three hops by plain aiokafka in one process, doing nothing at each."""

import asyncio
import time
import uuid

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

HOPS = 3


async def plain_chain(bootstrap: str, *, messages: int = 20_000, size: int = 500) -> float:
    """Messages per second through all hops."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}-"
    topics = [f"{prefix}{n}" for n in range(HOPS + 1)]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 4, 1) for topic in topics])
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_batch_size=512 * 1024
    )
    await producer.start()
    payload = b"x" * size
    for n in range(messages):
        await producer.send(topics[0], payload, key=b"%d" % n)
    await producer.flush()
    began = time.perf_counter()
    await asyncio.gather(*(_hop(bootstrap, producer, topics[n], topics[n + 1], messages) for n in range(HOPS)))
    rate = messages / (time.perf_counter() - began)
    await producer.stop()
    await admin.delete_topics(topics)
    await admin.close()
    return rate


async def _hop(bootstrap: str, producer: AIOKafkaProducer, source: str, target: str, messages: int) -> None:
    consumer = AIOKafkaConsumer(
        source, bootstrap_servers=bootstrap, group_id=f"{source}-group", auto_offset_reset="earliest",
        enable_auto_commit=False,
    )  # fmt: skip
    await consumer.start()
    done = 0
    while done < messages:
        for records in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
            answers = [await producer.send(target, record.value, key=record.key) for record in records]
            await asyncio.gather(*answers)
            done += len(records)
        await consumer.commit()
    await consumer.stop()
