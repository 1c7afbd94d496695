"""Readers of what is in the topic already, and the one who hears all of it live; on a real topic."""

import asyncio
import time
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from ingress.following import live as live_module
from ingress.following.live import LiveDeltas, NotFollowedError
from ingress.following.past import PastDeltas, PastUnreadableError
from schemas.topics import Catalog
from tests.conftest import KafkaForTests
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(catalog: Catalog) -> str:
    return catalog.full_name("completion-streamed")


async def told(kafka: KafkaForTests, topic: str, *values: bytes, key: bytes = b"k") -> list[Any]:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        return [await producer.send_and_wait(topic, value, key=key) for value in values]


async def test_a_range_is_read_by_offset_and_by_time(kafka: KafkaForTests, topic: str) -> None:
    past = PastDeltas(kafka.access, topic, readers=1)
    first, *_, last = await told(kafka, topic, *(b"%d" % n for n in range(5)))
    found: list[bytes] = []
    at = first.partition
    await past.read(at, first=1, since_ms=0, end=3, take=lambda record: found.append(record.value))
    assert found == [b"1", b"2"]
    since_ms = time.time() * 1000 - 60_000
    await past.read(at, first=None, since_ms=since_ms, end=last.offset, take=lambda record: found.append(record.value))
    assert found[2:] == [b"0", b"1", b"2", b"3"]
    # Nothing is so young, and nothing lies there: a topic that was made anew.
    await past.read(at, first=None, since_ms=since_ms + 3_600_000, end=5, take=lambda record: found.append(b"?"))
    await past.read(at, first=900, since_ms=0, end=1000, take=lambda record: found.append(b"?"))
    assert len(found) == 6
    assert len(past._idle) == 1  # one reader was enough
    await past.stop()


async def test_no_more_read_at_once_than_there_are_readers_and_no_more_wait_than_may(
    kafka: KafkaForTests, topic: str
) -> None:
    past = PastDeltas(kafka.access, topic, readers=1, max_waiting=2, within_s=5)
    await told(kafka, topic, b"0")
    reading, most, release = 0, 0, asyncio.Event()
    read = past._read

    async def held(*given: Any) -> None:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        await release.wait()
        await read(*given)
        reading -= 1

    past._read = held  # type: ignore[assignment]
    tasks = [asyncio.create_task(past.read(0, first=0, since_ms=0, end=1, take=lambda record: None)) for _ in range(3)]
    await until(lambda: reading == 1 and past._waiting == 2)
    with pytest.raises(PastUnreadableError, match="too many"):
        await past.read(0, first=0, since_ms=0, end=1, take=lambda record: None)
    release.set()
    await asyncio.gather(*tasks)
    assert most == 1
    await past.stop()


async def test_a_reader_that_gets_no_answer_is_given_up(kafka: KafkaForTests, topic: str) -> None:
    past: Any = PastDeltas(kafka.access, topic, readers=1, within_s=0.5)
    await told(kafka, topic, b"0")

    async def hangs(*given: Any) -> None:
        await asyncio.Event().wait()

    whole, past._read = past._read, hangs
    with pytest.raises(PastUnreadableError):
        await past.read(0, first=0, since_ms=0, end=1, take=lambda record: None)
    past._read = whole
    await past.read(0, first=0, since_ms=0, end=1, take=lambda record: None)  # the slot is free again
    await past.stop()


async def test_live_pieces_go_to_those_who_listen_and_beginnings_are_remembered(
    kafka: KafkaForTests, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "MAX_BEGUN", 2)
    live, found = LiveDeltas(kafka.access, topic), list[Any]()
    key = str(uuid4()).encode()
    with pytest.raises(NotFollowedError), live.listen(key, found.append):
        pass
    live.start()
    await until(lambda: live.problem is None)
    since_ms = live.heard_since_ms
    with live.listen(key, found.append) as place:
        (at,) = await told(kafka, topic, b'{"sequence":0,"text":"a"}', key=key)
        await told(kafka, topic, b'{"sequence":1,"text":"b"}', key=key)
        await until(lambda: len(found) == 2)
    assert (place.partition, place.next) == (at.partition, at.offset)
    assert live.begun_at(key) == at.offset
    await asyncio.wait_for(live.heard(at.partition, at.offset + 1), 5)
    await told(kafka, topic, b'{"sequence":0,"text":"a"}', key=b"1")
    await told(kafka, topic, b'{"sequence":0,"text":"a"}', key=b"2")
    await until(lambda: live.begun_at(b"2") is not None)
    assert live.begun_at(key) is None  # it had to go, and so what is as old as that may have begun unheard
    assert live.heard_since_ms > since_ms
    assert len(found) == 2
    await live.stop()


async def test_a_live_reader_that_begins_anew_misses_nothing(kafka: KafkaForTests, topic: str) -> None:
    live, found = LiveDeltas(kafka.access, topic), list[Any]()
    live.start()
    await until(lambda: live.problem is None)
    hand_out = live._hand_out

    def fails(record: Any) -> None:
        live._following.next[TopicPartition(topic, record.partition)] = record.offset  # as if it had not come
        live._hand_out = hand_out  # type: ignore[method-assign]
        raise ValueError("a bug")

    live._hand_out = fails  # type: ignore[method-assign]
    with live.listen(b"k", found.append):
        await told(kafka, topic, b"0", b"1")
        await until(lambda: len(found) == 2)
    await live.stop()
