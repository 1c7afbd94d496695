"""An operator makes a topic smaller while all runs: what it then refuses for good ends its job, and nothing else."""

import asyncio
import json
from collections import Counter
from typing import Any
from uuid import UUID

import httpx
import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.deployment import Deployment, client_of
from tests.pipeline.test_kill import accept
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until
from transport import admin

pytestmark = pytest.mark.integration
LONG = "x" * 10_000


async def shrink(deployment: Deployment, topic: str, to_bytes: int, *, provider: str | None = None) -> None:
    config = {**deployment.catalog[topic].config(), "max.message.bytes": str(to_bytes)}
    name = deployment.catalog.full_name(topic, provider=provider)
    async with admin.connected(deployment.kafka.access) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=config)])


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


async def test_what_is_refused_beside_others_ends_alone_and_its_partition_flows_on(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    """A broker refuses a whole batch for one record, and then what its producer numbers on from there."""
    ingress, workers = deployment.start("ingress"), [deployment.worker(role) for role in ("gate", "completion,sink")]
    await deployment.ready()
    async with client_of(ingress) as client:
        await accept(client, [f"before {n}" for n in range(40)])  # every partition has had something
        await shrink(deployment, "completion-requested-{provider}", 40_000, provider="openai")
        await asyncio.sleep(1)  # the broker hears of it a moment later
        for wave in range(3):
            short = [f"wave {wave}, {n}" for n in range(60)]
            await accept(client, [*short[:30], "".join(chr(0x4E00 + n % 5000) for n in range(19_000)), *short[30:]])

        async def all_ended() -> Any:
            rows = await deployment.finished_rows()
            return rows if len(rows) == 40 + 3 * 61 else None

        rows = await until(all_ended, within_s=60)
    codes = Counter(json.loads(row["error"])["code"] for row in rows.values() if row["error"])
    assert codes == {"output-too-large": 3}
    assert max(api.calls.values()) == 1
    assert [worker.popen.poll() for worker in workers] == [None, None]
