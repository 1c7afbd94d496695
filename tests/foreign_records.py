"""Records as our own producers would never write them."""

from collections.abc import Sequence
from unittest.mock import patch

from aiokafka import AIOKafkaProducer
from aiokafka.producer import message_accumulator
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

LARGEST = 16_000_000
Headers = Sequence[tuple[str, bytes | None]]
Foreign = tuple[bytes | None, bytes | None, Headers]


class BrokenName(str):
    """A header's name that is not UTF-8 on the wire: byte 0xff stands behind it."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return super().encode(encoding, errors) + b"\xff"


async def publish_as_one_batch(
    bootstrap: str,
    topic: str,
    records: Sequence[Foreign],
    *,
    compression: str | None = None,
    partition: int = 0,
) -> None:
    """Key, value and headers each."""
    # The compiled builder takes no names but real ones.
    with patch.object(message_accumulator, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy):
        async with AIOKafkaProducer(
            bootstrap_servers=bootstrap, compression_type=compression, max_batch_size=LARGEST, max_request_size=LARGEST
        ) as producer:
            batch = producer.create_batch()
            for key, value, headers in records:
                assert batch.append(key=key, value=value, timestamp=None, headers=list(headers)) is not None
            await (await producer.send_batch(batch, topic, partition=partition))
