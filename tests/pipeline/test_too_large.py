"""An operator makes a topic smaller while all runs: what it then refuses for good ends its job, and nothing else."""

import json
from typing import Any
from uuid import UUID

import httpx
import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.deployment import Deployment, client_of
from tests.waiting import until
from transport import admin

pytestmark = pytest.mark.integration
LONG = "x" * 10_000


async def shrink(deployment: Deployment, topic: str, to_bytes: int) -> None:
    config = {**deployment.catalog[topic].config(), "max.message.bytes": str(to_bytes)}
    async with admin._admin(deployment.kafka.access) as client:
        await client.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, deployment.prefix + topic, configs=config)]
        )


@pytest.mark.parametrize(
    ("topic", "stage"), [("job-finished", "generate_completion"), ("prompt-sanitized", "sanitize_prompt")]
)
async def test_an_output_that_the_brokers_refuse_ends_its_job(deployment: Deployment, topic: str, stage: str) -> None:
    ingress, worker = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    await shrink(deployment, topic, 4000)
    await shrink(deployment, "dead-letters", 4000)
    async with client_of(ingress) as client:

        async def refused() -> httpx.Response | None:  # the broker hears of it a moment later
            reply = await client.post("/chat/", json={"prompt": LONG})
            return reply if reply.status_code != 200 else None

        reply = await until(refused)
        assert reply.json()["code"] == "output-too-large"
        assert (await client.post("/chat/", json={"prompt": "short"})).status_code == 200

        async def stored() -> Any:
            return (await deployment.finished_rows()).get(UUID(reply.json()["job_id"]))

        assert json.loads((await until(stored))["error"])["code"] == "output-too-large"
    letter = (await until(lambda: deployment.records("dead-letters")))[-1]
    told = dict(letter.headers)
    assert told["dlq-stage"].decode() == stage
    assert told["dlq-code"] == b"output-too-large"
    assert told["ce_specversion"] == b"1.0"  # its own headers, still
    assert letter.value is None  # the dead letter itself was refused with it
    assert int(told["dlq-value-left-out"]) > len(LONG)
    assert worker.popen.poll() is None
