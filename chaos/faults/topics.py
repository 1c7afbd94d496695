"""Row 27: a topic that takes less than was promised, and one that is gone."""

import asyncio
import contextlib

import httpx
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from chaos.faults.disaster import waiting
from chaos.faults.registry import Scene, Void, fault
from chaos.load import Wanted
from chaos.system import PARTITIONS
from transport import admin
from transport.clients import KafkaAccess

TOPIC = "completion-requested-{provider}"
PROVIDER = "openai"
TAKES_BYTES, LONG_CHARS = 40_000, 19_000  # of three bytes each
LONG, SHORT = 12, 60
HEARD_S = 2.0
WITHIN_S = 200.0  # behind what the faults before have left
QUIET_WITHIN_S, TOLD_WITHIN_S, GONE_S = 60.0, 20.0, 10.0
ENDED = "SELECT count(*) FROM jobs WHERE error->>'code' = 'output-too-large'"


@fault("27", "a topic that takes less than a record has")
async def too_large(scene: Scene) -> None:
    """What it will never take ends its job, and nobody else's."""
    catalog = scene.system.deployment.catalog
    topic = catalog.full_name(TOPIC, provider=PROVIDER)
    before = await scene.asked(ENDED) or 0
    wanted = catalog[TOPIC].config()
    await _configure(scene, topic, {**wanted, "max.message.bytes": str(TAKES_BYTES)})
    try:
        await asyncio.sleep(HEARD_S)
        for number in range(LONG):
            mark = " " + "".join(chr(0x4E00 + scene.random.randrange(5000)) for _ in range(LONG_CHARS))
            scene.load.send(delay_s=0, via="rest", mark=mark, wanted=Wanted("output-too-large"))
            scene.load.burst(SHORT // LONG, delay_s=0.1 * (number % 3))
            await asyncio.sleep(0.2)
        await scene.until(f"SELECT ({ENDED}) >= $1", before + LONG, within_s=WITHIN_S)
    finally:
        await _configure(scene, topic, wanted)


@fault("27b", "a topic deleted, and made again")
async def deleted(scene: Scene) -> None:
    """While nothing was in it: what comes meanwhile waits, every worker says why and ends, and it goes on by itself."""
    catalog = scene.system.deployment.catalog
    async with scene.load.paused():
        if waits := await waiting(scene, within_s=QUIET_WITHIN_S):
            raise Void(f"{len(waits)} jobs or partitions were at work")
        async with admin.connected(KafkaAccess(scene.services.bootstrap)) as client:
            await client.delete_topics([catalog.full_name(TOPIC, provider=PROVIDER)])
    try:
        told = await _is_told(scene)
        scene.ledger.write("claim", told="no worker says that the topic is missing", holds=told)
        await asyncio.sleep(GONE_S)
    finally:
        done = await asyncio.to_thread(
            scene.system.deployment.run, "topics", "apply", "--partitions", str(PARTITIONS)
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)


async def _is_told(scene: Scene) -> bool:
    until = asyncio.get_running_loop().time() + TOLD_WITHIN_S
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        while asyncio.get_running_loop().time() < until:
            for member in scene.system.workers:
                with contextlib.suppress(httpx.HTTPError):
                    reply = await client.get(f"{member.http}/readyz")
                    if reply.status_code == 503 and "assistant topics apply" in reply.text:
                        return True
            await asyncio.sleep(0.5)
    return False


async def _configure(scene: Scene, topic: str, config: dict[str, str]) -> None:
    async with admin.connected(KafkaAccess(scene.services.bootstrap)) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=config)])
