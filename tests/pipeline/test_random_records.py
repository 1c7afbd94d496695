"""A thousand records that nobody meant on every topic: each is a dead letter or is processed, and all live on."""

import copy
import json
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import confluent_kafka
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from schemas.examples import Example, read_examples
from schemas.topics import PROVIDER, event_type
from tests.deployment import Deployment, client_of
from tests.waiting import until

pytestmark = pytest.mark.integration
SEED = 20261129
PARTITIONS = 4
# Where only our own stages write, a stage whose events are nearly all bad stops taking: that is tested elsewhere.
GOOD_BESIDE = (
    "prompt-sanitized", "job-admitted", "completion-requested-openai", "embedding-requested-openai", "example-received",
)  # fmt: skip
STAGES = {
    "gate": ("job-requested", "prompt-sanitized", "job-admitted"),
    "completion": ("completion-requested-openai", "embedding-requested-openai"),
    "sink": ("job-admitted", "job-finished", "security-incident-detected", "dead-letters", "example-received"),
}
ODD: tuple[Any, ...] = (
    None, "", 0, -1, 2**63, 2**70, 1e308, True, [], {}, "x" * 10_000, "\u0000", "\ud800", "9999-12-31T23:59:59Z",
    "-0001-01-01", "2026-01-01T00:00:00", "../../../etc/passwd", "%00", "' OR 1=1 --",
    {"a": {"a": {"a": []}}}, [[[[[[[[[[]]]]]]]]]],
)  # fmt: skip
Headers = list[tuple[str, str | bytes | None]]
Wire = tuple[bytes | None, bytes | None, Headers]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys."""
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(child, dict | list):
            yield from places(child)


def mutated(example: Example, dice: Random) -> Wire:
    value = copy.deepcopy(example.value)
    for _ in range(dice.randrange(1, 4)):
        container, key = dice.choice(list(places(value)) or [(value, "x")])
        if isinstance(container, dict) and dice.random() < 0.3:
            container.pop(key, None)
        else:
            container[key] = copy.deepcopy(dice.choice(ODD))
    body = bytearray(json.dumps(value).encode())
    if dice.random() < 0.3:  # no JSON any more
        at = dice.randrange(len(body))
        body[at : at + dice.randrange(1, 5)] = dice.randbytes(dice.randrange(8))
    headers: Headers = list(example.wire_headers())
    if dice.random() < 0.5:
        name, text = headers.pop(dice.randrange(len(headers)))
        headers += dice.choice([[], [(name, dice.randbytes(20))], [(name, None)], [(name, text), (name, b"again")]])
    if dice.random() < 0.1:
        headers += [(f"x-{n}", dice.randbytes(50)) for n in range(100)]
    return dice.choice([example.key.encode(), None, b"", dice.randbytes(30)]), bytes(body), headers


def garbage(dice: Random) -> Wire:
    return dice.randbytes(8), b"\xff" + dice.randbytes(dice.randrange(300)), [("", b""), ("ce_id", dice.randbytes(4))]


def is_plain(example: Example) -> bool:
    """True if it is of a job that `openai` answers."""
    value = example.value
    return "job" in value and value.get("provider", "openai") == "openai" and "image" not in value.get("request", {})


def valid(example: Example) -> Wire:
    """The example as a job of today."""
    value, now, job_id = copy.deepcopy(example.value), datetime.now(UTC), str(uuid.uuid4())
    times = {"accepted_at": now.isoformat(), "expires_at": (now + timedelta(hours=1)).isoformat()}
    value["job"] |= {"job_id": job_id, "user_id": "root", "role": "admin", **times}
    value["job"].pop("timings", None)
    headers = {**example.headers, "ce_id": str(uuid.uuid4())}
    key = job_id if example.key == example.value["job"]["job_id"] else "root"
    return key.encode(), json.dumps(value).encode(), [(name, text.encode()) for name, text in headers.items()]


def publish_all(deployment: Deployment, mark: str, each: int) -> Counter[str]:
    """How many records without sense went to each topic."""
    dice, sent = Random(SEED), Counter[str]()
    producer = confluent_kafka.Producer({"bootstrap.servers": deployment.kafka.bootstrap, "linger.ms": 20})
    examples = read_examples()
    for topic in deployment.catalog:
        name = topic.name.replace(PROVIDER, "openai")
        cases = list(examples[event_type(topic)].values())
        whole = [case for case in cases if is_plain(case)]
        partitions = min(topic.partitions, PARTITIONS)
        for n in range(each):
            is_garbage = dice.random() < 0.3
            key, body, headers = garbage(dice) if is_garbage else mutated(dice.choice(cases), dice)
            if is_garbage:
                sent[name] += 1
                headers.append(("mark", f"{mark}/{name}".encode()))
            good = [valid(dice.choice(whole)) for _ in range(3)] if name in GOOD_BESIDE else []
            for one in ((key, body, headers), *good):
                producer.produce(deployment.prefix + name, one[1], one[0], partition=n % partitions, headers=one[2])
            producer.poll(0)
    assert producer.flush(60) == 0
    return sent


async def all_is_read(deployment: Deployment) -> bool:
    """True once every group has committed all of its topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.kafka.bootstrap)
    await admin.start()
    consumer = confluent_kafka.Consumer({"bootstrap.servers": deployment.kafka.bootstrap, "group.id": "none"})
    try:
        for role, names in STAGES.items():
            committed = await admin.list_consumer_group_offsets(deployment.catalog.group(role))
            for name in names:
                topic = deployment.prefix + name
                for partition in range(1 if name == "dead-letters" else PARTITIONS):
                    _, end = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, partition))
                    found = committed.get(TopicPartition(topic, partition))
                    if end and (found is None or found.offset < end):
                        return False
        return True
    finally:
        consumer.close()
        await admin.close()


@pytest.mark.parametrize("each", [150, pytest.param(1_000, marks=pytest.mark.long)])
async def test_every_consumer_lives_and_every_record_has_its_end(deployment: Deployment, each: int) -> None:
    ingress = deployment.start("ingress")
    worker = deployment.worker("gate,completion,sink", STAGE_COOL_DOWN_S="0.1")
    await deployment.ready()
    mark = uuid.uuid4().hex
    sent = publish_all(deployment, mark, each)
    assert len(sent) >= 12
    await until(lambda: all_is_read(deployment), within_s=240)
    letters = Counter[str]()
    for letter in await deployment.records("dead-letters"):
        found = {value.decode().partition("/") for name, value in letter.headers if name == "mark"}
        stages = [value for name, value in letter.headers if name == "dlq-stage"]
        if stages:  # without one it is what was published here
            letters.update(topic for text, _, topic in found if text == mark)
    for name in {name for names in STAGES.values() for name in names} - {"dead-letters"}:
        assert letters[name] == sent[name], name
    assert ingress.popen.poll() is None
    assert worker.popen.poll() is None
    async with client_of(ingress) as client:
        prompt = f"still here {uuid.uuid4()}"
        reply = await client.post("/chat/", json={"prompt": prompt, "provider": "openai"})
        assert reply.json()["result"]["text"] == f"Answer to: {prompt}", reply.text
        vector = await client.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": prompt})
        assert vector.status_code == 200, vector.text
        lesson = await client.post("/instruction/smart/add", json={"instruction": "Answer.", "output": prompt})
        assert lesson.status_code == 202, lesson.text
        assert (await client.get("/readyz")).status_code == 200
    # A stage whose last events were all bad is ready again once one has worked.
    await until(worker.is_ready)
