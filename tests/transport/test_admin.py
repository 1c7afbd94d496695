import asyncio
from functools import partial

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.topics import Catalog
from tests.conftest import TEST_PROVIDERS, KafkaForTests
from tests.waiting import until
from transport import admin
from transport.clients import KafkaAccess
from transport.closing import close

pytestmark = pytest.mark.integration


async def test_topics_are_planned_made_and_found_right(kafka: KafkaForTests, topic_prefix: str) -> None:
    catalog = Catalog.load(prefix=topic_prefix)
    planned = await admin.plan(kafka.access, catalog, TEST_PROVIDERS, partitions=2)
    names = set(catalog.deployed(TEST_PROVIDERS))
    assert {difference.topic for difference in planned} == names
    assert all(str(difference).endswith("is missing") for difference in planned)
    assert {difference.topic for difference in await admin.unusable(kafka.access, catalog, TEST_PROVIDERS)} == names
    await admin.apply(kafka.access, catalog, TEST_PROVIDERS, partitions=2)

    async def as_wanted() -> bool:
        return await admin.plan(kafka.access, catalog, TEST_PROVIDERS, partitions=2) == []

    await until(as_wanted)
    assert await admin.apply(kafka.access, catalog, TEST_PROVIDERS, partitions=2) == []
    assert await admin.unusable(kafka.access, catalog, TEST_PROVIDERS) == []  # 2 partitions instead of 12 are fine


async def as_applied(kafka: KafkaForTests, catalog: Catalog) -> None:
    """A broker hears of a change a moment after the controller."""

    async def nothing_differs() -> bool:
        return await admin.plan(kafka.access, catalog, TEST_PROVIDERS, partitions=4) == []

    await until(nothing_differs)


async def alter(kafka: KafkaForTests, name: str, config: dict[str, str]) -> None:
    """As an operator would: in place of all that was set."""
    async with admin.connected(kafka.access) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=config)])


async def found_on(kafka: KafkaForTests, name: str) -> dict[str, str]:
    async with admin.connected(kafka.access) as client:
        return (await admin._configs(client, [name], set_on_the_topic=True))[name]


async def test_a_setting_that_was_changed_is_said_and_set_again_beside_the_operators_own(
    kafka: KafkaForTests, catalog: Catalog
) -> None:
    await as_applied(kafka, catalog)
    name = catalog.full_name("job-requested")
    own = {"min.insync.replicas": "1", "segment.bytes": "2097152", "retention.bytes": "123456789"}
    await alter(kafka, name, {**catalog["job-requested"].config(), "message.timestamp.type": "CreateTime", **own})

    async def planned() -> list[admin.Difference]:  # a broker hears of a change a moment after the controller
        found = await admin.plan(kafka.access, catalog, TEST_PROVIDERS, partitions=4)
        return found if all(difference.action == "configure" for difference in found) else []

    (difference,) = await until(planned)
    assert str(difference) == f"{name}: message.timestamp.type is CreateTime, topics.yaml says LogAppendTime"
    await admin.apply(kafka.access, catalog, TEST_PROVIDERS, partitions=4)
    await as_applied(kafka, catalog)
    assert await found_on(kafka, name) == catalog["job-requested"].config() | own


@pytest.mark.parametrize(
    ("topic", "field", "value"),
    [
        ("job-requested", "message.timestamp.type", "CreateTime"),
        ("job-requested", "compression.type", "producer"),
        ("user-updated", "cleanup.policy", "delete"),
        ("dead-letters", "max.message.bytes", "1000"),
    ],
)
async def test_a_topic_of_another_nature_is_unusable(
    kafka: KafkaForTests, catalog: Catalog, topic: str, field: str, value: str
) -> None:
    await as_applied(kafka, catalog)
    name = catalog.full_name(topic)
    await alter(kafka, name, {**catalog[topic].config(), field: value})

    async def unusable() -> list[admin.Difference]:
        return await admin.unusable(kafka.access, catalog, TEST_PROVIDERS)

    (difference,) = await until(unusable)
    assert (difference.topic, difference.field, difference.found) == (name, field, value)


async def test_more_room_and_another_retention_are_the_operators_business(
    kafka: KafkaForTests, catalog: Catalog
) -> None:
    await as_applied(kafka, catalog)
    name = catalog.full_name("job-finished")
    await alter(kafka, name, {**catalog["job-finished"].config(), "max.message.bytes": "3000000", "retention.ms": "1"})

    async def seen() -> bool:
        return len(await admin.plan(kafka.access, catalog, TEST_PROVIDERS, partitions=4)) == 2

    await until(seen)
    assert await admin.unusable(kafka.access, catalog, TEST_PROVIDERS) == []


async def test_a_change_that_the_cluster_refuses_is_said(kafka: KafkaForTests, catalog: Catalog) -> None:
    await as_applied(kafka, catalog)
    name = catalog.full_name("job-finished")
    async with admin.connected(kafka.access) as client:
        with pytest.raises(admin.TopicsError, match=r"job-finished: the cluster refused .*cleanup\.policy"):
            await admin._configure(client, {name: {"cleanup.policy": "burn"}})


async def test_another_number_of_partitions_is_left_to_people(kafka: KafkaForTests, catalog: Catalog) -> None:

    async def seen() -> bool:
        return await admin.plan(kafka.access, catalog, TEST_PROVIDERS, partitions=4) == []

    await until(seen)
    with pytest.raises(admin.TopicsError, match=r"partitions is 4, topics\.yaml says 3"):
        await admin.apply(kafka.access, catalog, TEST_PROVIDERS, partitions=3)


async def test_a_cluster_that_is_not_there_is_one_sentence() -> None:
    catalog = Catalog.load()
    with pytest.raises(admin.TopicsError, match=r"Kafka at 127\.0\.0\.1:1"):
        await admin.plan(KafkaAccess("127.0.0.1:1"), catalog, TEST_PROVIDERS)


async def test_an_admin_client_that_never_closes_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Admin:
        async def start(self) -> None:
            pass

        async def close(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(admin, "close", partial(close, within_s=0.01))
    monkeypatch.setattr(admin, "AIOKafkaAdminClient", lambda **_: Admin())
    async with asyncio.timeout(20), admin.connected(KafkaAccess("nowhere:1")) as found:
        assert isinstance(found, Admin)
