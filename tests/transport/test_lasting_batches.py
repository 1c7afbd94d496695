"""What an idempotent producer has taken waits for a leader, however long there is none."""

import time

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from tests.waiting import until
from transport.clients import KafkaAccess

NOWHERE = TopicPartition("a-topic-that-nobody-leads", 0)


@pytest.mark.parametrize(("is_idempotent", "lasts"), [(True, True), (False, False)])
async def test_a_batch_without_a_leader_lasts_where_it_must(is_idempotent: bool, lasts: bool) -> None:
    """Without idempotence it is as aiokafka has it, else this would show nothing."""
    options = KafkaAccess("127.0.0.1:1").options() | {"request_timeout_ms": 1}
    producer = AIOKafkaProducer(**options, enable_idempotence=is_idempotent)  # never started: it knows no leader
    taken = producer._message_accumulator
    try:
        answer = await taken.add_message(NOWHERE, b"key", b"value", timeout=1)
        taken_at = time.monotonic()
        await until(lambda: time.monotonic() - taken_at > 0.001)
        _, is_unled = taken.drain_by_nodes(ignore_nodes=())
        assert is_unled
        assert answer.done() is not lasts
        if not lasts:
            with pytest.raises(KafkaError):
                answer.result()
    finally:
        taken.fail_all(KafkaError("the test ends"))
        await producer.stop()
        if lasts:
            answer.exception()
