"""Reads topics from their beginning to a known end, in no group: nobody's place in them is moved."""

from collections.abc import AsyncIterator, Mapping
from time import monotonic

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from recover.errors import RecoverError
from transport.clients import KafkaAccess

BATCH = 1_000  # records in memory beside what the client has fetched
SILENCE_S = 60.0

Ends = Mapping[TopicPartition, int]


async def ends_of(access: KafkaAccess, topic: str) -> dict[TopicPartition, int]:
    """The offset after the last record of each partition, as of now.

    Raises:
        RecoverError: The cluster does not answer.
    """
    consumer = AIOKafkaConsumer(topic, **access.options(), enable_auto_commit=False)
    try:
        await consumer.start()
        return dict(await consumer.end_offsets(list(consumer.assignment())))
    except (KafkaError, OSError) as error:
        raise _unreachable(access, error) from error
    finally:
        await consumer.stop()


async def read(access: KafkaAccess, ends: Ends) -> AsyncIterator[list[ConsumerRecord]]:
    """All below `ends` that is still kept: batches of one partition each, in log order.

    Raises:
        RecoverError: The cluster does not answer, or has nothing to say for a minute.
    """
    consumer = AIOKafkaConsumer(**access.options(), enable_auto_commit=False, fetch_max_wait_ms=50)
    try:
        await consumer.start()
        consumer.assign(list(ends))
        await consumer.seek_to_beginning(*ends)
        left = set(ends)
        heard_at = monotonic()
        while left:
            for at in [at for at in left if await consumer.position(at) >= ends[at]]:
                consumer.pause(at)
                left.remove(at)
            if not left:
                break
            batches = await consumer.getmany(*left, timeout_ms=1000, max_records=BATCH)
            for at, records in batches.items():
                if wanted := [record for record in records if record.offset < ends[at]]:
                    yield wanted
            if batches:
                heard_at = monotonic()
            elif monotonic() - heard_at > SILENCE_S:
                raise RecoverError(f"Kafka has said nothing for {SILENCE_S:.0f} s; run it again")
    except (KafkaError, OSError) as error:
        raise _unreachable(access, error) from error
    finally:
        await consumer.stop()


def _unreachable(access: KafkaAccess, error: Exception) -> RecoverError:
    if refusal := access.refusal:
        return RecoverError(refusal)
    return RecoverError(f"Kafka at {access.bootstrap_servers} does not answer ({type(error).__name__}); run it again")
