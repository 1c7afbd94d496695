import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.events import UserUpdated
from schemas.topics import Catalog
from tests.conftest import KafkaForTests
from tests.factories import user_updated
from tests.waiting import until
from transport.table import CompactedTable, NotStartedError

pytestmark = pytest.mark.integration


async def test_a_table_has_all_at_its_start_and_follows(kafka: KafkaForTests, catalog: Catalog) -> None:
    topic = catalog.full_name("user-updated")
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:

        async def put(key: str, value: bytes | None) -> None:
            await producer.send_and_wait(topic, value, key=key.encode())

        for n in range(50):
            await put(f"user-{n}", user_updated(user_id=f"user-{n}").model_dump_json().encode())
        await put("user-1", user_updated(user_id="user-1", disabled=True).model_dump_json().encode())
        await put("broken", b"{")
        table = CompactedTable(kafka.access, topic, UserUpdated)
        await table.start()
        assert len(table.values) == 50
        assert table.values["user-1"].disabled
        await put("late", user_updated(user_id="late").model_dump_json().encode())
        await asyncio.wait_for(table.reach_end(), 10)
        assert "late" in table.values
        await put("user-2", None)
        await until(lambda: "user-2" not in table.values)
        await table.stop()


async def test_a_table_lets_go_what_is_of_no_use(kafka: KafkaForTests, catalog: Catalog) -> None:
    topic = catalog.full_name("user-updated")
    table = CompactedTable(kafka.access, topic, UserUpdated, forget=lambda user: user.token_epoch < newest[0] - 10)
    newest = [0]
    await table.start()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for n in range(200):
            newest[0] = n
            user = user_updated(user_id=f"user-{n}", token_epoch=n)
            await producer.send_and_wait(topic, user.model_dump_json().encode(), key=user.user_id.encode())
            await asyncio.wait_for(table.reach_end(), 10)
            assert len(table.values) <= 11
    assert set(table.values) == {f"user-{n}" for n in range(189, 200)}
    await table.stop()


async def test_a_table_without_its_topic_says_which(kafka: KafkaForTests, topic_prefix: str) -> None:
    with pytest.raises(KafkaError, match="missing"):
        await CompactedTable(kafka.access, f"{topic_prefix}nowhere", UserUpdated).start()


async def test_a_table_outlives_a_bug_and_reads_again(kafka: KafkaForTests, catalog: Catalog) -> None:
    topic = catalog.full_name("user-updated")
    fails = [True]

    def on_change(key: str, event: UserUpdated | None) -> None:
        if key == "bob" and fails.pop():
            fails.append(False)
            raise ValueError("a bug")

    table = CompactedTable(kafka.access, topic, UserUpdated, on_change=on_change)
    with pytest.raises(NotStartedError):
        await table.reach_end()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:

        async def put(name: str) -> None:
            value = user_updated(user_id=name).model_dump_json().encode()
            await producer.send_and_wait(topic, value, key=name.encode())

        await put("alice")
        await table.start()
        assert table.is_running
        await put("bob")
        await put("carol")
    await until(lambda: not table.is_running)  # it is said
    await asyncio.wait_for(table.reach_end(), 20)  # whoever waits in the meantime waits for its coming back
    assert table.is_running
    assert table.values.keys() == {"alice", "bob", "carol"}
    await table.stop()
    assert not table.is_running


async def test_what_was_so_once_is_not_told_again_when_a_table_is_read_anew(
    kafka: KafkaForTests, catalog: Catalog
) -> None:
    """Somebody who was disabled and is not any more would lose their work."""
    topic = catalog.full_name("user-updated")
    told: list[tuple[str, bool]] = []
    fails = [False]

    def on_change(key: str, event: UserUpdated | None) -> None:
        assert event is not None
        told.append((key, event.disabled))
        if key == "bob" and fails.pop():
            fails.append(False)
            raise ValueError("a bug")

    table = CompactedTable(kafka.access, topic, UserUpdated, on_change=on_change)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:

        async def put(name: str, *, disabled: bool = False) -> None:
            value = user_updated(user_id=name, disabled=disabled).model_dump_json().encode()
            await producer.send_and_wait(topic, value, key=name.encode())

        for disabled in (False, True, False):
            await put("alice", disabled=disabled)
        await put("carol", disabled=True)
        await table.start()
        assert told == [("alice", False), ("alice", True), ("alice", False), ("carol", True)]
        told.clear()
        fails[0] = True
        await put("bob")
        await until(lambda: not table.is_running)
        await asyncio.wait_for(table.reach_end(), 20)
        assert sorted(told) == [("alice", False), ("bob", False), ("bob", False), ("carol", True)]
        await put("alice", disabled=True)
        await asyncio.wait_for(table.reach_end(), 20)
        assert told[-1] == ("alice", True)
    await table.stop()
