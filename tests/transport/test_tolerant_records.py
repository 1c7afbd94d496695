import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.topics import Catalog
from tests.conftest import KafkaForTests
from tests.foreign_records import BrokenName, Foreign, publish_as_one_batch

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("compression", [None, "gzip", "lz4", "snappy", "zstd"])
async def test_a_header_whose_name_is_not_utf_8_costs_no_record(
    kafka: KafkaForTests, catalog: Catalog, compression: str | None
) -> None:
    """One batch: good, bad, good; and one more batch behind it."""
    topic = catalog.full_name("job-progressed")  # packed as its producer packs it
    batch: list[Foreign] = [
        (b"key", b"value 0", [("fine", b"\xfe"), ("empty", None)]),
        (None, b"value 1", [(BrokenName("bad"), b"\xfe"), ("empty", None), ("fine", b"1")]),
        (b"key", None, [("fine", b"2")]),
    ]
    await publish_as_one_batch(kafka.bootstrap, topic, batch, compression=compression)
    await publish_as_one_batch(kafka.bootstrap, topic, [(b"key", b"value 3", [])], compression=compression)
    # As KafkaAccess opens one; it is at home in tests/conftest.py, whose import has made every consumer tolerant.
    async with AIOKafkaConsumer(**kafka.access.options(), auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        found = [await consumer.getone() for _ in range(4)]
    assert [(record.offset, record.key, record.value) for record in found] == [
        (0, b"key", b"value 0"), (1, None, b"value 1"), (2, b"key", None), (3, b"key", b"value 3"),
    ]  # fmt: skip
    assert found[0].headers == (("fine", b"\xfe"), ("empty", None))
    assert found[1].headers == (("bad\\xff", b"\xfe"), ("empty", None), ("fine", b"1"))
    assert found[2].headers == (("fine", b"2"),)
