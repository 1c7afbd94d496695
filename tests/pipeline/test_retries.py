"""Long retries through the whole product: done, seen, killed in between, and without Postgres."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.deployment import Deployment, client_of
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration

BUSY = "provider-http-503"
TOPIC = "completion-requested-openai"


async def due_rows(deployment: Deployment) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(deployment.dsn)
    try:
        return await connection.fetch("SELECT * FROM due_events")  # type: ignore[no-any-return]
    finally:
        await connection.close()


async def executed(deployment: Deployment, statement: str, *arguments: Any) -> None:
    connection = await asyncpg.connect(deployment.dsn)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def is_behind(deployment: Deployment) -> bool:
    """Something of the completion topic is not committed yet."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=deployment.kafka.bootstrap, group_id=f"{deployment.prefix}assistant-completion"
    )  # fmt: skip
    await consumer.start()
    try:
        topic = deployment.prefix + TOPIC
        await consumer._client.add_topic(topic)
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        ends = await consumer.end_offsets(partitions)
        return any([end and (await consumer.committed(tp) or 0) < end for tp, end in ends.items()])
    finally:
        await consumer.stop()


async def asked(client, prompt: str) -> str:
    reply = await client.post("/chat/async", json={"prompt": prompt})
    assert reply.status_code == 202, reply.text
    return f"/jobs/{reply.json()['job_id']}"


async def completed(client, path: str, *, within_s: float = 60) -> dict[str, Any]:
    async def view() -> Any:
        found = (await client.get(path)).json()
        return found if found["status"] != "pending" else None

    found: dict[str, Any] = await until(view, within_s=within_s)
    assert found["status"] == "completed", found
    return found


async def put_off(deployment: Deployment, jobs: int = 1) -> None:
    """So many wait, and their inputs are committed."""

    async def kept() -> bool:
        return len(await due_rows(deployment)) == jobs and not await is_behind(deployment)

    await until(kept)


async def outcomes(deployment: Deployment) -> Counter[bytes]:
    return Counter(record.key for record in await deployment.records("job-finished"))


async def test_a_job_is_tried_over_long_waits_and_tells_every_try(deployment: Deployment, api: OpenAIStandIn) -> None:
    deployment.environment["RETRY_LONG_FIRST_S"] = "0.3"
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        paths = [await asked(client, f"[fails=5] {n}") for n in range(20)]
        for path in paths:
            view = await completed(client, path)
            codes = [attempt.get("code") for attempt in view["attempts"]]
            assert codes == [BUSY] * 5 + [None]  # in three rounds of two
            assert [attempt.get("code") for attempt in view["result"]["meta"]["attempts"]] == codes
    assert set(api.calls.values()) == {6}
    assert await due_rows(deployment) == []
    requested = await deployment.records(TOPIC)
    assert Counter(json.loads(record.value)["retry"] for record in requested) == {0: 20, 1: 20, 2: 20}
    assert len({dict(record.headers)["ce_id"] for record in requested}) == 60
    assert await deployment.records("dead-letters") == []


async def test_a_job_that_waits_says_so_and_a_waiting_call_ends_at_once(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        reply = await client.post("/chat/", json={"prompt": "[mode=503] sync"})
        assert (reply.status_code, reply.json()["code"]) == (502, BUSY)
        path = await asked(client, "[mode=503] async")
        began = time.time()

        async def waits() -> Any:
            view = (await client.get(path)).json()
            return view if view.get("state") == "waiting" else None

        view = await until(waits)
        assert (view["status"], view["stage"]) == ("pending", "generate_completion")
        assert [attempt["code"] for attempt in view["attempts"]] == [BUSY] * 2
        (row,) = await until(lambda: due_rows(deployment))
        assert 25 < row["due_at"].timestamp() - began < 45
        assert view["retry_at"] == row["due_at"].isoformat().replace("+00:00", "Z")
        other = deployment.start("ingress")  # has heard nothing
        await deployment.ready(other)
        async with client_of(other) as client_of_other:
            seen = (await client_of_other.get(path)).json()
        assert seen == view
    assert await deployment.records("dead-letters") != []  # of the waiting call alone
    assert len(await outcomes(deployment)) == 1


@pytest.mark.parametrize("role", ["completion", pytest.param("sink", marks=pytest.mark.long)])
async def test_a_worker_killed_while_jobs_wait_loses_nothing_and_pays_nothing_twice(
    deployment: Deployment, api: OpenAIStandIn, role: str
) -> None:
    deployment.environment["RETRY_LONG_FIRST_S"] = "4"
    ingress, _ = (
        deployment.start("ingress"),
        deployment.worker({"completion": "gate,sink", "sink": "gate,completion"}[role]),
    )
    victim = deployment.worker(role, WORKER_ID="heir")
    await deployment.ready()
    async with client_of(ingress) as client:
        paths = await asyncio.gather(*(asked(client, f"[fails=2] {n}") for n in range(30)))
        await put_off(deployment, 30)
        victim.kill()
        assert set(api.calls.values()) == {2}
        deployment.worker(role, WORKER_ID="heir")  # under its name: nobody waits for the end of a session
        for path in paths:
            await completed(client, path)
    assert set(api.calls.values()) == {3}
    assert set((await outcomes(deployment)).values()) == {1}
    assert len(await outcomes(deployment)) == 30


async def test_an_event_released_twice_is_paid_for_once(deployment: Deployment, api: OpenAIStandIn) -> None:
    """As by a releaser that was killed after publishing and before deleting."""
    deployment.environment["RETRY_LONG_FIRST_S"] = "1"
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion")
    deployment.worker("sink")
    deployment.worker("sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        path = await asked(client, "[fails=2] [delay=2]")
        (row,) = await until(lambda: due_rows(deployment))
        await until(lambda: sum(api.calls.values()) == 3)  # the provider has it for 2 s
        columns, places = ", ".join(row.keys()), ", ".join(f"${n + 1}" for n in range(len(row)))
        await executed(deployment, f"INSERT INTO due_events ({columns}) VALUES ({places})", *row.values())

        async def released_again() -> bool:
            ids = Counter(dict(record.headers)["ce_id"] for record in await deployment.records(TOPIC))
            return ids[row["due_id"].encode()] == 2

        await until(released_again)
        await completed(client, path)
        await until(lambda: not api.busy)
        await completed(client, await asked(client, "another one"))
    assert sorted(api.calls.values()) == [1, 3]
    assert set((await outcomes(deployment)).values()) == {1}


async def test_what_waits_of_a_job_that_ended_otherwise_is_never_paid_for(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    deployment.environment["RETRY_LONG_FIRST_S"] = "3"
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        path = await asked(client, "[mode=503] ended")
        await put_off(deployment)
        (requested,) = await deployment.records(TOPIC)
        event = json.loads(requested.value)
        outcome = {"job": event["job"], "status": "error", "finished_at": event["job"]["accepted_at"],
                   "error": {"code": "cancelled", "message": "by its user"}}  # fmt: skip
        headers = [("ce_id", b"x"), ("ce_source", b"/t"), ("ce_type", b"job-finished"), ("ce_specversion", b"1.0")]
        await deployment.publish("job-finished", json.dumps(outcome).encode(), requested.key, headers)

        async def gone() -> bool:
            return not await due_rows(deployment)

        await until(gone)
        assert (await client.get(path)).json()["error"]["code"] == "cancelled"
        assert len(await deployment.records(TOPIC)) == 1
    assert set(api.calls.values()) == {2}


async def test_a_completion_worker_without_a_database_holds_in_place_and_stops_at_once(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    deployment.environment["RETRY_LONG_FIRST_S"] = "1"
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    worker = deployment.worker("completion", DATABASE_URL="")
    await deployment.ready()
    async with client_of(ingress) as client:
        view = await completed(client, await asked(client, "[fails=3] held"))
        assert [attempt.get("code") for attempt in view["attempts"]] == [BUSY] * 3 + [None]
        assert api.calls["[fails=3] held"] == 4
        assert "held in this process" in worker.log.read_text()
        assert await worker.stop() == 0
        held = deployment.worker("completion", DATABASE_URL="", RETRY_LONG_FIRST_S="300")
        await deployment.ready(held)
        path = await asked(client, "[fails=2] given back")
        await until(lambda: api.calls["[fails=2] given back"] == 2 and not api.busy)

        async def waits() -> bool:
            return bool((await client.get(path)).json().get("state") == "waiting")

        await until(waits)
        began = time.monotonic()
        assert await held.stop() == 0
        assert time.monotonic() - began < 10  # of 30 that it may take
        deployment.worker("completion")
        await completed(client, path)  # it came again, from the start
        assert api.calls["[fails=2] given back"] == 3
