"""A reader that waits for more asks seldom, hears at once, and is not held up by its own fetch."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest

from schemas.events import UserUpdated
from schemas.topics import Catalog
from streams.cancellation_log import CancellationLog
from streams.cancellations import Cancellations
from tests.conftest import KafkaForTests
from tests.factories import user_updated
from tests.waiting import until
from transport import resting
from transport.following import Following
from transport.table import CompactedTable

HELD_BACK_MS = 15_000


async def test_what_it_asks_beside_its_fetches_goes_another_way() -> None:
    sent: list[Any] = []

    async def send(node_id: int, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT) -> str:
        sent.append((node_id, type(request), group))
        return "answer"

    client = SimpleNamespace(send=send)
    consumer: Any = SimpleNamespace(_client=client, _fetcher=SimpleNamespace(_fetch_max_wait_ms=resting.BRISK_MS))
    resting.rest(consumer)
    assert consumer._fetcher._fetch_max_wait_ms == resting.REST_MS
    fetch = FetchRequest(1, 1, 1, 0, [])
    assert [await client.send(1, fetch), await client.send(2, OffsetRequest(-1, 0, []))] == ["answer", "answer"]
    assert sent == [(1, FetchRequest, ConnectionGroup.DEFAULT), (2, OffsetRequest, ConnectionGroup.COORDINATION)]


@pytest.mark.integration
async def test_a_table_at_rest_reaches_the_end_while_its_fetch_is_held_back(
    kafka: KafkaForTests, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resting, "REST_MS", HELD_BACK_MS)
    topic = catalog.full_name("user-updated")
    users = CompactedTable(kafka.access, topic, UserUpdated)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer, asyncio.timeout(10):
        await users.start()
        fetches: list[int] = []
        consumer: Any = users._consumer
        send = consumer._client.send

        async def counted(node_id: int, request: Any, **options: Any) -> Any:
            if isinstance(request, FetchRequest):
                fetches.append(request._max_wait_ms)
            return await send(node_id, request, **options)

        consumer._client.send = counted
        for n in range(3):
            name = f"u{n}"
            value = user_updated(user_id=name).model_dump_json().encode()
            await producer.send_and_wait(topic, value, key=name.encode())
            await until(lambda name=name: name in users.values)
            await until(lambda n=n: len(fetches) > n)  # the next one is held back
            await users.reach_end()  # behind it that would take 15 s
        assert set(fetches) == {HELD_BACK_MS}
        assert len(fetches) <= 4
        await users.stop()


@pytest.mark.integration
@pytest.mark.parametrize("reader", ["following", "cancellations", "table"])
async def test_each_reader_rests_once_it_has_read(
    kafka: KafkaForTests, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    waits: list[int] = []
    send = AIOKafkaClient.send

    async def counted(self: Any, node_id: int, request: Any, **options: Any) -> Any:
        if isinstance(request, FetchRequest):
            waits.append(request._max_wait_ms)
        return await send(self, node_id, request, **options)

    monkeypatch.setattr(AIOKafkaClient, "send", counted)
    topic = catalog.full_name("user-updated")
    made: Any
    if reader == "following":
        made = Following(kafka.access, (topic,), lambda record: None, what="users")
        made.start()
    else:
        made = (
            CompactedTable(kafka.access, topic, UserUpdated)
            if reader == "table"
            else CancellationLog(kafka.access, topic, Cancellations({}))
        )
        await made.start()
    await until(lambda: waits[-3:] == [resting.REST_MS] * 3)
    await made.stop()
