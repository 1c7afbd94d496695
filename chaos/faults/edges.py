"""The edges: ingress, topics that anyone writes to, provider, webhook receiver, clients that repeat themselves."""

import asyncio
import json
from signal import SIGTERM

import httpx
from aiokafka import AIOKafkaProducer

from chaos.dump import MARK, fingerprint
from chaos.failpoints import POINTS
from chaos.faults.commit_points import arm, dies
from chaos.faults.registry import Scene, Void, fault
from schemas.envelope import Attributes
from schemas.events import JobRequested
from schemas.requests import ChatRequest
from transport import admin
from transport.clients import KafkaAccess

GARBAGE_TOPICS = ("job-requested", "prompt-sanitized", "job-admitted", "completion-requested-openai")
GARBAGE_EACH = 20
COPIES, REPEATED_JOBS = 20, 5
MODES_S = 8.0
PROVIDER_MODES = ("500", "429-seconds", "close", "garbage", "truncated", "empty", "hang")
RECEIVER_MODES = ("500", "302", "close", "slow")


@fault("11", "bytes that are no events, on every stage's topic", short=True)
async def garbage(scene: Scene) -> None:
    """Each is a dead letter with the bytes as they came, and the partition flows on."""
    catalog = scene.system.deployment.catalog
    async with AIOKafkaProducer(bootstrap_servers=scene.services.bootstrap, acks="all") as producer:
        for name in GARBAGE_TOPICS:
            topic = catalog.prefix + name
            for number in range(GARBAGE_EACH):
                value = scene.random.randbytes(scene.random.randint(1, 400)) + f" {name} {number}".encode()
                mark = fingerprint(value)
                headers: list[tuple[str, bytes | None]] = [(MARK, mark.encode())]
                if number % 2:  # a whole envelope, of a version or with a value that nobody knows
                    headers += Attributes(mark, "https://chaos.example/garbage", name).headers()
                await producer.send_and_wait(topic, value, key=b"%d" % number, headers=headers)
                scene.ledger.write("garbage", mark=mark, topic=name)


@fault("12", "kill -9 of the ingress between accept and answer", short=True)
async def ingress_between_accept_and_answer(scene: Scene) -> None:
    """Every 202 is honoured; a client that got none does not know, and says so."""
    points = POINTS["ingress"] if not scene.short else (scene.random.choice(POINTS["ingress"]),)
    ended = 0
    for point in points:
        replica = arm(scene, "ingress", point, scene.random.randint(5, 30))
        address = replica.http
        if not await scene.system.ready(replica, within_s=30):
            scene.load.target.ingresses.append(address)
            scene.load.burst(20, delay_s=0)
        try:
            ended += await dies(scene, replica)
        finally:
            if address in scene.load.target.ingresses:
                scene.load.target.ingresses.remove(address)
    victim = scene.random.choice(scene.system.of("ingress"))
    scene.system.kill(victim)
    if not ended:
        raise Void("no point was passed")


@fault("14", "kill -9 of the webhook sender after POST, before recording")
async def sender_between_post_and_record(scene: Scene) -> None:
    """The lease runs out, and another sends the same id and body."""
    points = [point for point in POINTS["sink"] if point.startswith("webhook")]
    ended = await asyncio.gather(*(dies(scene, arm(scene, "sink", point, 1)) for point in points))
    if not any(ended):
        raise Void("no point was passed")


@fault("17", "partitions added while running", once=True)
async def more_partitions(scene: Scene) -> None:
    """Seen by each client at its next look at the cluster, at most five minutes later."""
    catalog = scene.system.deployment.catalog
    access = KafkaAccess(scene.services.bootstrap)
    name = catalog.full_name("completion-requested-{provider}", provider="openai")
    async with admin.connected(access) as client:
        (told,) = await client.describe_topics([name])
    await admin.add_partitions(access, name, len(told["partitions"]) + 1)
    for member in scene.system.workers:  # rolled, one after another, so that they look at once
        scene.system.kill(member, SIGTERM)
        await asyncio.sleep(3)


@fault("35", "provider: 500, 429, reset, garbage, cut off, empty, silent")
async def provider_modes(scene: Scene) -> None:
    """Every job ends; those whose provider failed with an error that says so."""
    modes = list(PROVIDER_MODES)
    scene.random.shuffle(modes)
    url = scene.provider.url.removesuffix("/v1")
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        try:
            for mode in modes:
                await client.get(f"{url}/mode/{mode}")
                await asyncio.sleep(MODES_S / 2)
        finally:
            await client.get(f"{url}/mode/answer")


@fault("37", "webhook receiver: 500, 302, reset, slow")
async def receiver_modes(scene: Scene) -> None:
    """Sent again under the same id; a redirect is not followed."""
    modes = list(RECEIVER_MODES)
    scene.random.shuffle(modes)
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        try:
            for mode in modes:
                await client.post(f"{scene.receiver.url}/mode/{mode}")
                await asyncio.sleep(MODES_S / 2)
        finally:
            await client.post(f"{scene.receiver.url}/mode/ok")


@fault("39", "20 parallel copies of one event")
async def parallel_copies(scene: Scene) -> None:
    """One job, one call."""
    for number in range(REPEATED_JOBS):
        user = scene.random.choice(list(scene.load.target.tokens))
        key = f"copies-{scene.load.seed}-{scene.random.randrange(10**9)}-{number}"
        scene.ledger.write("intent", key=key, user=user, via="direct", hook=False)
        requested = JobRequested(user_id=user, kind="chat", request=ChatRequest(prompt=f"[{key}] chaos"))
        value = json.dumps(requested.model_dump(mode="json", exclude_none=True)).encode()
        await scene.load.publish(key, user, value, copies=COPIES)
