"""Cancelling: what is at work is cut, what waits is never begun, and there is one outcome whatever happens."""

import asyncio
import json
import re
import time
import uuid
from collections import Counter
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from schemas.ids import direct_job_id
from tests.deployment import PASSWORD, Deployment, client_of, register
from tests.pipeline.conftest import Running
from tests.pipeline.test_direct import SOURCE, cloud_event, publish, request
from tests.pipeline.test_kill import accept
from tests.pipeline.test_rest import problem
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


async def codes(deployment: Deployment, job_ids: list[str]) -> dict[str, str | None]:
    """Of those jobs: how each has ended, None for one that is completed; once all of them have."""

    async def ended() -> Any:
        rows = {str(job_id): row for job_id, row in (await deployment.finished_rows()).items()}
        return rows if rows.keys() >= set(job_ids) else None

    rows = await until(ended, within_s=60)
    return {job_id: json.loads(rows[job_id]["error"])["code"] if rows[job_id]["error"] else None for job_id in job_ids}


async def one_outcome_each(deployment: Deployment, count: int) -> None:
    outcomes = Counter(record.key for record in await deployment.records("job-finished"))
    assert len(outcomes) == count
    assert set(outcomes.values()) == {1}


async def all_committed(deployment: Deployment) -> bool:
    """The completion workers have nothing open."""
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.kafka.bootstrap)
    await admin.start()
    try:
        committed = await admin.list_consumer_group_offsets(f"{deployment.prefix}assistant-completion")
    finally:
        await admin.close()
    topic = f"{deployment.prefix}completion-requested-openai"
    ends = Counter(record.partition for record in await deployment.records("completion-requested-openai"))
    return {at.partition: found.offset for at, found in committed.items() if at.topic == topic and found.offset} == ends


async def sharing(deployment: Deployment, workers: int) -> bool:
    """So many workers have a part of the completion topic each, by their last words."""
    topic = f"{deployment.prefix}completion-requested-openai"
    beats = {record.key: json.loads(record.value) for record in await deployment.records("worker-heartbeat")}
    return sum(bool(beat["partitions"].get(topic)) for beat in beats.values()) == workers


# --- on workers that the test starts and kills ---


async def test_a_call_in_progress_is_closed_within_500_ms_on_whichever_worker_it_runs(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    workers = [deployment.worker("completion") for _ in range(2)]
    await deployment.ready()
    await until(lambda: sharing(deployment, 2))
    async with client_of(ingress) as client:
        job_ids = await accept(client, [f"[mode=hang] {n}" for n in range(16)])
        await until(lambda: api.busy == 16)
        calling = [psutil.Process(worker.popen.pid).net_connections("tcp") for worker in workers]
        port = urlsplit(api.base_url).port
        assert all(any(found.raddr and found.raddr.port == port for found in each) for each in calling)
        for left in range(15, -1, -1):
            began = time.monotonic()
            reply = await client.post(f"/jobs/{job_ids[left]}/cancel")
            assert reply.status_code in (200, 202), reply.text
            await until(lambda left=left: api.busy <= left)
            assert time.monotonic() - began < 0.5
        assert set((await codes(deployment, job_ids)).values()) == {"cancelled"}
        await one_outcome_each(deployment, 16)
        assert set(api.calls.values()) == {1}
        await until(lambda: all_committed(deployment))  # the ledgers have moved on
        assert (await client.post("/chat/", json={"prompt": "and on it goes"})).status_code == 200


async def test_a_queued_job_ends_without_waiting_for_its_turn(deployment: Deployment, api: OpenAIStandIn) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink", COMPLETION_CONCURRENCY="1")
    await deployment.ready()
    async with client_of(ingress) as client:
        (running,) = await accept(client, ["[mode=hang] running"])
        await until(lambda: api.busy == 1)
        queued = await accept(client, [f"queued {n}" for n in range(5)])
        for job_id in queued[1:]:
            assert (await client.post(f"/jobs/{job_id}/cancel")).status_code in (200, 202)
        assert set((await codes(deployment, queued[1:])).values()) == {"cancelled"}
        assert api.busy == 1
        assert (await client.get(f"/jobs/{queued[0]}")).json()["status"] == "pending"
        assert (await client.post(f"/jobs/{running}/cancel")).status_code in (200, 202)
        assert await codes(deployment, queued[:1]) == {queued[0]: None}  # its turn has come
        assert set(api.calls) == {"[mode=hang] running", "queued 0"}


async def test_a_job_cancelled_while_no_worker_runs_never_calls_a_provider(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    ingress = deployment.start("ingress")
    workers = [deployment.worker("gate,sink"), deployment.worker("completion", COMPLETION_CONCURRENCY="1")]
    await deployment.ready()
    async with client_of(ingress) as client:
        (running,) = await accept(client, ["[mode=hang] running"])
        await until(lambda: api.busy == 1)
        queued = await accept(client, [f"queued {n}" for n in range(5)])

        async def routed() -> bool:
            return len(await deployment.records("completion-requested-openai")) == 6

        await until(routed)
        for worker in workers:
            worker.kill()
        not_even_routed = (await client.post("/chat/async", json={"prompt": "not even routed"})).json()["job_id"]
        for job_id in (*queued, not_even_routed):
            reply = await client.post(f"/jobs/{job_id}/cancel")
            assert (reply.status_code, reply.json()) == (202, {"job_id": job_id, "status": "cancelling"})
        deployment.worker("gate,sink")
        deployment.worker("completion", COMPLETION_CONCURRENCY="1")
        ended = await codes(deployment, [*queued, not_even_routed])
        assert set(ended.values()) == {"cancelled"}
        await until(lambda: api.busy == 1)  # what was at work is at work again, and is cancelled where it now runs
        assert (await client.post(f"/jobs/{running}/cancel")).status_code in (200, 202)
        assert await codes(deployment, [running]) == {running: "cancelled"}
        assert set(api.calls) == {"[mode=hang] running"}
        # A gate that is killed repeats itself; all that it says again is the same, and a row takes the first.
        said = {(record.key, b'"cancelled"' in record.value) for record in await deployment.records("job-finished")}
        assert len(said) == len(await deployment.rows()) == 7


@pytest.mark.long
async def test_cancels_that_race_completions_leave_one_outcome_each(deployment: Deployment, api: OpenAIStandIn) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    random = Random(7)
    async with client_of(ingress) as client:

        async def race(n: int) -> tuple[str, str]:
            job_id = (await accept(client, [f"{n} [delay={random.uniform(0, 0.3):.3f}]"]))[0]
            statuses = []
            for _ in range(3):  # the same from several hands
                reply = await client.post(f"/jobs/{job_id}/cancel")
                assert reply.status_code == (202 if reply.json()["status"] == "cancelling" else 200)
                statuses.append(reply.json()["status"])
            told = [status for status in statuses if status != "cancelling"]
            assert len(set(told)) <= 1  # an end is never taken back
            return job_id, told[-1] if told else "cancelling"

        told = dict(await asyncio.gather(*(race(n) for n in range(200))))
        ended = await codes(deployment, list(told))
        assert set(ended.values()) == {None, "cancelled"}  # both have happened, or it was no race
        for job_id, status in told.items():
            assert status in ("cancelling", "already-finished" if ended[job_id] is None else "cancelled")
        assert len(await deployment.rows()) == 200
        await one_outcome_each(deployment, 200)


# --- by call and by event, on one deployment for all ---


async def started(client: httpx.AsyncClient, running: Running, **more: Any) -> tuple[str, str]:
    """A job that a provider is at work on, and its prompt."""
    prompt = f"[mode=hang] {uuid.uuid4()}"
    reply = await client.post("/chat/async", json={"prompt": prompt}, **more)
    assert reply.status_code == 202, reply.text
    await until(lambda: running.calls().get(prompt))
    return reply.json()["job_id"], prompt


async def error_of(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    async def failed() -> Any:
        reply = await client.get(f"/jobs/{job_id}")
        return reply.json()["error"] if reply.status_code == 200 and reply.json()["status"] == "error" else None

    error: dict[str, Any] = await until(failed)
    return error


async def test_cancelling_may_be_repeated_and_says_how_the_job_stands(running: Running) -> None:
    async with client_of(running.ingress) as client:
        job_id, _ = await started(client, running)
        reply = await client.post(f"/jobs/{job_id}/cancel")
        assert reply.json() == {"job_id": job_id, "status": "cancelled"}  # it is quick enough to be seen at once
        assert reply.status_code == 200
        error = await error_of(client, job_id)
        assert error["code"] == "cancelled"
        assert error["message"]
        for _ in range(2):
            reply = await client.post(f"/jobs/{job_id}/cancel")
            assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")
        done = (await client.post("/chat/", json={"prompt": "done"})).json()["meta"]["job_id"]

        async def stored() -> Any:
            return uuid.UUID(done) in await running.deployment.finished_rows()

        await until(stored)
        reply = await client.post(f"/jobs/{done}/cancel")
        assert (reply.status_code, reply.json()) == (200, {"job_id": done, "status": "already-finished"})


async def test_a_job_of_another_is_as_unknown_as_none_and_an_admin_may(running: Running) -> None:
    async with client_of(running.ingress) as admin:
        alice = await register(admin, f"alice-{uuid.uuid4().hex[:6]}")
        bob = await register(admin, f"bob-{uuid.uuid4().hex[:6]}")
        job_id, _ = await started(admin, running, headers=alice)
        bodies = []
        for unknown in (job_id, uuid.uuid4()):
            reply = await admin.post(f"/jobs/{unknown}/cancel", headers=bob)
            bodies.append({**problem(reply, 404, "not-found"), "request_id": ""})
        assert bodies[0] == bodies[1]
        problem(await admin.post("/jobs/7/cancel"), 404, "not-found")
        assert (await admin.get(f"/jobs/{job_id}", headers=alice)).json()["status"] == "pending"
        assert (await admin.post(f"/jobs/{job_id}/cancel")).json()["status"] == "cancelled"
        assert (await error_of(admin, job_id))["code"] == "cancelled"


async def test_an_event_cancels_a_job_of_its_user_and_no_others(running: Running) -> None:
    async with client_of(running.ingress) as admin:
        name = f"carol-{uuid.uuid4().hex[:6]}"
        carol = await register(admin, name)
        job_id, _ = await started(admin, running, headers=carol)

        async def publish(value: bytes) -> None:
            await running.deployment.publish("job-cancel-requested", value, job_id.encode())

        async def taken(kind: str) -> float:
            async with httpx.AsyncClient() as client:
                text = (await client.get(f"{running.worker.http}/metrics")).text
            found = re.search(rf'assistant_cancellations_total{{outcome="{kind}"}} ([0-9.]+)', text)
            return float(found.group(1)) if found else 0.0

        unreadable, before = await taken("unreadable"), await taken("taken")
        await publish(b"{")
        await publish(json.dumps({"job_id": job_id}).encode())
        await publish(json.dumps({"job_id": job_id, "user_id": "mallory"}).encode())

        async def all_seen() -> bool:
            return (await taken("unreadable"), await taken("taken")) == (unreadable + 2, before + 1)

        await until(all_seen)
        assert (await admin.get(f"/jobs/{job_id}", headers=carol)).json()["status"] == "pending"
        await publish(json.dumps({"job_id": job_id, "user_id": name}).encode())
        assert (await error_of(admin, job_id))["code"] == "cancelled"


async def test_many_are_cancelled_by_what_they_have_in_common(running: Running) -> None:
    """Published directly, since only events carry metadata."""
    async with client_of(running.ingress) as admin:
        name = f"dave-{uuid.uuid4().hex[:6]}"
        dave = await register(admin, name)
        job_ids = {}
        for n in range(6):
            event_id, metadata = str(uuid.uuid4()), {"batch": "odd" if n % 2 else "even", "n": str(n)}
            value = {**request(f"[mode=hang] {uuid.uuid4()}", metadata=metadata), "user_id": name}
            publish(running, value, cloud_event(event_id))
            job_ids[n] = str(direct_job_id(SOURCE, name, event_id))

        async def all_stored() -> bool:
            return len((await admin.get("/jobs", headers=dave)).json()["items"]) == 6

        await until(all_stored)

        async def cancel(**body: Any) -> tuple[set[str], Any]:
            reply = await admin.post("/jobs/cancel", json=body, headers=body.pop("headers", dave))
            assert reply.status_code == 202, reply.text
            found = reply.json()
            assert {item["status"] for item in found["items"]} <= {"cancelling", "cancelled"}
            return {item["job_id"] for item in found["items"]}, found["next"]

        async def pending() -> set[str]:
            page = (await admin.get("/jobs", headers=dave, params={"status": "pending"})).json()
            return {item["job_id"] for item in page["items"]}

        long_ago, later = "2026-01-01T00:00:00Z", "2998-01-01T00:00:00+02:00"
        assert await cancel(accepted_before=long_ago) == (set(), None)
        assert await cancel(accepted_after=later) == (set(), None)
        assert await cancel(metadata={"batch": "even", "n": "1"}) == (set(), None)
        assert await cancel(headers={}) == (set(), None)  # an admin's own, where nobody is named
        assert await pending() == set(job_ids.values())
        odd = {job_ids[n] for n in (1, 3, 5)}
        assert await cancel(metadata={"batch": "odd"}, kind="chat", status="pending") == (odd, None)

        async def only_even() -> bool:
            return await pending() == set(job_ids.values()) - odd

        await until(only_even)
        first, after = await cancel(limit=2, accepted_after=long_ago, accepted_before=later)
        rest, end = await cancel(limit=2, cursor=after, user_id=name, headers={})
        assert (len(first), len(rest), end) == (2, 1, None)
        assert first | rest == set(job_ids.values()) - odd
        for job_id in job_ids.values():
            assert (await error_of(admin, job_id))["code"] == "cancelled"
        assert (await admin.get(f"/jobs/{job_ids[1]}")).json()["metadata"] == {"batch": "odd", "n": "1"}

        problem(await admin.post("/jobs/cancel", json={"user_id": "root"}, headers=dave), 403, "not-allowed")
        problem(await admin.post("/jobs/cancel", json={"cursor": "x"}), 400, "invalid-cursor")
        for body in ({"limit": 1001}, {"status": "completed"}, {"accepted_before": "yesterday"}, {"colour": "red"},
                     {"accepted_after": "0001-01-01T00:00:00+23:00"}, {"metadata": {"a": 1}}):  # fmt: skip
            problem(await admin.post("/jobs/cancel", json=body), 422, "invalid-body")


async def test_the_command_cancels_too(running: Running) -> None:
    async with client_of(running.ingress) as client:
        job_id, _ = await started(client, running)
        done = await asyncio.to_thread(
            running.deployment.run, "cancel", job_id, ASSISTANT_URL=running.ingress.http, ASSISTANT_PASSWORD=PASSWORD,
            ASSISTANT_HOME=str(running.deployment.folder),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() in ("cancelled", "cancelling")  # it waits for its end no longer than a call does
        assert (await error_of(client, job_id))["code"] == "cancelled"
