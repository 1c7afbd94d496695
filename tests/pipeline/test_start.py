"""What stops a worker's start is said in one sentence, with the topic's name and field."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.deployment import Deployment
from tests.waiting import until
from transport import admin

pytestmark = pytest.mark.integration


async def remove(deployment: Deployment) -> None:
    await admin.delete(deployment.kafka.access, [deployment.prefix + "job-finished"])


async def let_clients_choose_the_time(deployment: Deployment) -> None:
    config = {**deployment.catalog["job-requested"].config(), "message.timestamp.type": "CreateTime"}
    resource = ConfigResource(ConfigResourceType.TOPIC, deployment.prefix + "job-requested", configs=config)
    async with admin.connected(deployment.kafka.access) as client:
        await client.alter_configs([resource])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (remove, "{prefix}job-finished: is missing"),
        (
            let_clients_choose_the_time,
            "{prefix}job-requested: message.timestamp.type is CreateTime, topics.yaml says LogAppendTime",
        ),
    ],
)
async def test_topics_that_are_not_right_are_named(
    deployment: Deployment, spoil: Callable[[Deployment], Awaitable[None]], sentence: str
) -> None:
    await spoil(deployment)

    async def seen() -> bool:
        providers = ("openai", "local")
        return bool(await admin.unusable(deployment.kafka.access, deployment.catalog, providers))

    await until(seen)
    done = await asyncio.to_thread(deployment.run, "worker", "--roles", "gate")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert sentence.format(prefix=deployment.prefix) in line
    assert line.endswith("run `assistant topics apply`")
