import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.topics import Catalog
from tests.conftest import TEST_PROVIDERS, KafkaForTests
from tests.waiting import until
from transport import admin
from transport.clients import KafkaAccess

pytestmark = pytest.mark.integration


async def test_topics_are_planned_made_and_found_right(kafka: KafkaForTests, topic_prefix: str) -> None:
    catalog = Catalog.load(prefix=topic_prefix)
    planned = await admin.plan(kafka.access, catalog, TEST_PROVIDERS, partitions=2)
    names = set(catalog.deployed(TEST_PROVIDERS))
    assert {difference.topic for difference in planned} == names
    assert all(str(difference).endswith("is missing") for difference in planned)
    assert set(await admin.missing_topics(kafka.access, catalog, TEST_PROVIDERS)) == names
    await admin.apply(kafka.access, catalog, TEST_PROVIDERS, partitions=2)

    async def as_wanted() -> bool:
        return await admin.plan(kafka.access, catalog, TEST_PROVIDERS, partitions=2) == []

    await until(as_wanted)
    assert await admin.apply(kafka.access, catalog, TEST_PROVIDERS, partitions=2) == []
    assert await admin.missing_topics(kafka.access, catalog, TEST_PROVIDERS) == []


async def test_a_setting_that_was_changed_is_said_and_set_again(kafka: KafkaForTests, catalog: Catalog) -> None:
    name = catalog.full_name("job-requested")
    client = AIOKafkaAdminClient(**kafka.access.options())
    await client.start()
    config = {**catalog["job-requested"].config(), "message.timestamp.type": "CreateTime"}
    await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=config)])
    await client.close()

    async def planned() -> list[admin.Difference]:  # a broker hears of a change a moment after the controller
        found = await admin.plan(kafka.access, catalog, TEST_PROVIDERS, partitions=4)
        return found if all(difference.action == "configure" for difference in found) else []

    (difference,) = await until(planned)
    assert str(difference) == f"{name}: message.timestamp.type is CreateTime, topics.yaml says LogAppendTime"
    await admin.apply(kafka.access, catalog, TEST_PROVIDERS, partitions=4)

    async def all_right() -> bool:
        return await planned() == []

    await until(all_right)


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
