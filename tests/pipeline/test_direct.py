"""Straight to the topic: what the README shows, and what anybody may write there."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import confluent_kafka
import pytest
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.partitioner import murmur2
from standardwebhooks import Webhook

from schemas.events import JobFinished
from schemas.ids import direct_job_id
from schemas.job_view import outcome_view
from tests.deployment import client_of
from tests.foreign_records import BrokenName, Foreign, publish_as_one_batch
from tests.pipeline.conftest import Hook, Running
from tests.waiting import until

pytestmark = pytest.mark.integration
SOURCE = "https://shop.example/orders"


def cloud_event(event_id: str, **more: str) -> dict[str, str]:
    return {
        "ce_id": event_id, "ce_source": SOURCE, "ce_specversion": "1.0", "ce_type": "job-requested",
        "ce_time": datetime.now(UTC).isoformat(), "content-type": "application/json", **more,
    }  # fmt: skip


PARTITION = 1


def publish(
    running: Running, value: Any, headers: dict[str, str], *, key: bytes | None = b"root", compression: str = "none"
) -> None:
    """Always to the same partition: what stands in the way of one stands in the way of the next."""
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": running.deployment.kafka.bootstrap, "compression.type": compression}
    )
    body = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    topic = running.deployment.prefix + "job-requested"
    producer.produce(topic, body, key, partition=PARTITION, headers=list(headers.items()))
    assert producer.flush(10) == 0


async def the_partition_flows(running: Running) -> None:
    """Whatever was published before on it."""
    await outcome_of(running, published(running, f"after {uuid.uuid4()}"))


def published(running: Running, prompt: str, **options: Any) -> uuid.UUID:
    event_id = str(uuid.uuid4())
    publish(running, request(prompt), cloud_event(event_id), **options)
    return direct_job_id(SOURCE, "root", event_id)


async def outcome_of(running: Running, job_id: uuid.UUID, status: str = "completed") -> Any:
    async def ended() -> Any:
        return (await running.deployment.finished_rows()).get(job_id)

    row = await until(ended)
    assert row["status"] == status, row["error"]
    return row


def request(prompt: str, **more: Any) -> dict[str, Any]:
    return {"user_id": "root", "kind": "chat", "request": {"prompt": prompt}, **more}


def work_partition(job_id: uuid.UUID) -> int:
    """Of the four of `completion-requested-openai`."""
    return int((murmur2(str(job_id).encode()) & 0x7FFFFFFF) % 4)


async def test_an_event_is_answered_like_a_call_and_twice_is_once(running: Running, hook: Hook) -> None:
    event_id, prompt = str(uuid.uuid4()), f"direct {uuid.uuid4()}"
    job_id = direct_job_id(SOURCE, "root", event_id)
    for _ in range(3):
        publish(running, request(prompt, metadata={"order": "7"}, callback_url=hook.url), cloud_event(event_id))
    # Behind the three in every topic on their way, and slower: once it has ended, they have been decided on.
    ids = (str(uuid.uuid4()) for _ in range(1000))
    last = next(one for one in ids if work_partition(direct_job_id(SOURCE, "root", one)) == work_partition(job_id))
    publish(running, request("behind them [delay=0.5]"), cloud_event(last))
    async with client_of(running.ingress) as client:

        async def completed(of: uuid.UUID) -> Any:
            reply = await client.get(f"/jobs/{of}")
            return reply.json() if reply.status_code == 200 and reply.json()["status"] == "completed" else None

        await until(lambda: completed(direct_job_id(SOURCE, "root", last)))
        view = await until(lambda: completed(job_id))
        assert view["result"]["result"]["text"] == f"Answer to: {prompt}"
        assert view["metadata"] == {"order": "7"}
        assert running.calls()[prompt] == 1
        await until(lambda: hook.calls)
        secret = (await client.get("/webhook-secret")).json()["secret"]
        assert [Webhook(secret).verify(body, headers) for headers, body in hook.calls] == [
            {"type": "job.completed", "timestamp": view["finished_at"], "data": view}
        ]
    rows = [row for row in await running.deployment.rows() if row["job_id"] == job_id]
    assert len(rows) == 1
    finished = [
        JobFinished.model_validate_json(record.value)
        for record in await running.deployment.records("job-finished")
        if record.key == str(job_id).encode()
    ]
    assert [outcome_view(event) for event in finished] == [view]


@pytest.mark.parametrize(
    ("value", "headers", "code"),
    [
        (b"\xff\x00garbage", cloud_event("1"), "invalid-event"),
        (b"", cloud_event("2"), "invalid-event"),
        (None, cloud_event("10"), "invalid-event"),
        (None, cloud_event("11", keyless="yes"), "invalid-event"),
        (b"[" * 5000, cloud_event("3"), "invalid-event"),
        (request("hi"), {}, "invalid-event"),
        (request("hi"), cloud_event("4", ce_specversion="0.3"), "invalid-event"),
        ({"user_id": "root", "kind": "chat"}, cloud_event("5"), "invalid-event"),
        ({"user_id": "root", "kind": "dance", "request": {"prompt": "x"}}, cloud_event("6"), "invalid-event"),
        ({"user_id": "root", "kind": "chat", "request": {"prompt": ""}}, cloud_event("7"), "invalid-event"),
        ({"user_id": "root", "kind": "chat", "request": {"prompt": "x", "nope": 1}}, cloud_event("8"), "invalid-event"),
        ({"user_id": "nobody", "kind": "chat", "request": {"prompt": "x"}}, cloud_event("9"), "unknown-user"),
    ],
)
async def test_what_is_no_request_is_a_dead_letter_and_the_partition_flows_on(
    running: Running, value: Any, headers: dict[str, str], code: str
) -> None:
    mark = uuid.uuid4().hex
    key = None if "keyless" in headers else b"root"
    publish(running, value, {**headers, "mark": mark}, key=key)

    async def dead() -> Any:
        return [
            record
            for record in await running.deployment.records("dead-letters")
            if dict(record.headers).get("mark") == mark.encode()
        ]

    (letter,) = await until(dead)
    told = dict(letter.headers)
    assert told["dlq-code"].decode() == code
    assert told["dlq-stage"] == b"sanitize_prompt"
    assert told["dlq-reason"]
    assert letter.key == key  # untouched, also where there is none
    if key is None:
        assert letter.value == b""  # a record with neither cannot be sent
    else:
        assert letter.value == (value if isinstance(value, bytes | None) else json.dumps(value).encode())
    await the_partition_flows(running)


@pytest.mark.parametrize("compression", ["gzip", "lz4", "snappy", "zstd"])
async def test_a_request_may_come_packed(running: Running, compression: str) -> None:
    prompt = f"packed with {compression} {uuid.uuid4()}"
    await outcome_of(running, published(running, prompt, compression=compression))
    assert running.calls()[prompt] == 1


async def test_what_is_too_large_once_unpacked_is_refused_by_the_broker(running: Running) -> None:
    topic = running.deployment.prefix + "job-requested"
    batch: list[Foreign] = [(b"root", b"x" * 5_000_000, [])]
    with pytest.raises(MessageSizeTooLargeError):
        await publish_as_one_batch(running.deployment.kafka.bootstrap, topic, batch, compression="gzip")
    await the_partition_flows(running)


async def test_a_header_whose_name_is_not_utf_8_stands_in_nobodys_way(running: Running) -> None:
    event_id, mark = str(uuid.uuid4()), uuid.uuid4().hex
    headers = [(name, value.encode()) for name, value in cloud_event(event_id).items()]
    broken = [(BrokenName("mine"), b"\xff"), ("mark", mark.encode())]
    good = json.dumps(request(f"odd header {mark}")).encode()
    batch: list[Foreign] = [(b"root", good, [*headers, *broken]), (b"root", b"no request", broken)]
    topic = running.deployment.prefix + "job-requested"
    await publish_as_one_batch(running.deployment.kafka.bootstrap, topic, batch, partition=PARTITION)
    await outcome_of(running, direct_job_id(SOURCE, "root", event_id))

    async def dead() -> Any:
        return [letter for letter in await running.deployment.records("dead-letters")
                if ("mark", mark.encode()) in letter.headers]  # fmt: skip

    (letter,) = await until(dead)
    assert (letter.key, letter.value) == (b"root", b"no request")
    assert letter.headers[0] == ("mine\\xff", b"\xff")
    await the_partition_flows(running)
    assert running.worker.popen.poll() is None


async def test_a_request_that_does_not_fit_ends_the_job_of_a_known_user(running: Running) -> None:
    event_id = str(uuid.uuid4())
    publish(running, {"user_id": "root", "kind": "chat", "request": {}}, cloud_event(event_id))
    job_id = direct_job_id(SOURCE, "root", event_id)
    row = await outcome_of(running, job_id, "error")
    assert json.loads(row["error"])["code"] == "invalid-event"


async def test_nobody_can_claim_another_users_job_id(running: Running) -> None:
    """An id of root's, published for a user that is not root, is another job."""
    async with client_of(running.ingress) as client:
        reply = await client.post("/chat/async", json={"prompt": "mine"})
        job_id = reply.json()["job_id"]
        from tests.deployment import register

        name = f"mallory-{uuid.uuid4().hex[:6]}"
        await register(client, name)
        publish(running, {**request("stolen"), "user_id": name}, cloud_event(job_id, ce_source="/ingress"))
        other = direct_job_id("/ingress", name, job_id)

        async def both() -> bool:
            return {uuid.UUID(job_id), other} <= (await running.deployment.finished_rows()).keys()

        await until(both)
        rows = await running.deployment.finished_rows()
        assert rows[uuid.UUID(job_id)]["user_id"] == "root"
        assert "mine" in rows[uuid.UUID(job_id)]["result"]
