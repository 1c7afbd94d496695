"""The rate limit is exact while the gate is killed: never one above it in any window, none eaten by a redelivery."""

import asyncio
import json
import os
from random import Random

import pytest
from aiokafka import AIOKafkaProducer

from schemas.envelope import Attributes
from schemas.events import JobAdmitted, JobFinished
from tests.deployment import Deployment, client_of, register
from tests.waiting import until

pytestmark = pytest.mark.integration
LIMIT, WINDOW_S, USERS, KILLS = 5, 2, 8, 4
SEED = int(os.environ.get("SEED", "7"))  # of which gate is killed, and when


async def test_verdicts_stay_exact_while_gate_workers_are_killed(deployment: Deployment) -> None:
    deployment.environment |= {"RATE_LIMIT_WINDOW": str(WINDOW_S), "RATE_LIMIT_USER_REQUESTS": str(LIMIT)}
    ingress = deployment.start("ingress")
    gates = [deployment.worker("gate"), deployment.worker("gate")]
    deployment.worker("completion,sink")
    await deployment.ready()
    stop, random = asyncio.Event(), Random(SEED)
    producer = AIOKafkaProducer(bootstrap_servers=deployment.kafka.bootstrap)
    async with client_of(ingress) as client, producer:
        headers = [await register(client, f"user-{n}") for n in range(USERS)]

        async def ask(header: dict[str, str]) -> int:
            count = 0
            while not stop.is_set():
                reply = await client.post("/chat/async", json={"prompt": f"{count}"}, headers=header)
                count += reply.status_code in (202, 429)
                await asyncio.sleep(0.05)
            return count

        async def publish(user_id: str) -> None:  # direct publishers are counted alike
            count = 0
            while not stop.is_set():
                attributes = Attributes(f"{user_id}/{count}", "/elsewhere", "job-requested")
                value = json.dumps({"user_id": user_id, "kind": "chat", "request": {"prompt": f"{count}"}}).encode()
                topic = f"{deployment.prefix}job-requested"
                await producer.send_and_wait(topic, value, key=user_id.encode(), headers=attributes.headers())
                count += 1
                await asyncio.sleep(0.05)

        asking = [asyncio.create_task(ask(header)) for header in headers[: USERS // 2]]
        publishing = [asyncio.create_task(publish(f"user-{n}")) for n in range(USERS // 2, USERS)]
        for _ in range(KILLS):
            decided, more = len(await deployment.finished_rows()), random.randint(5, 60)

            async def goes_on(decided: int = decided, more: int = more) -> bool:
                return len(await deployment.finished_rows()) > decided + more

            await until(goes_on, within_s=60)
            gates.pop(random.randrange(2)).kill()
            gates.append(deployment.worker("gate"))
        stop.set()
        await asyncio.gather(*asking, *publishing)

        requested = {dict(record.headers)["ce_id"] for record in await deployment.records("job-requested")}

        async def all_ended() -> bool:  # also those that the gate had not come to yet: they have no row
            return len(await deployment.finished_rows()) == len(requested)

        await until(all_ended, within_s=60)

    # The log itself is the witness: one verdict per request, and the admissions of each user in time.
    admitted = [JobAdmitted.model_validate_json(record.value) for record in await deployment.records("job-admitted")]
    finished = [JobFinished.model_validate_json(record.value) for record in await deployment.records("job-finished")]
    passed = {event.job.job_id for event in admitted}
    refused = {event.job.job_id for event in finished if event.error and event.error.code == "rate-limited"}
    assert not passed & refused, "two verdicts on one request"
    assert len(passed | refused) == len(requested)
    for n in range(USERS):
        times = sorted({(e.job.accepted_at, e.job.job_id) for e in admitted if e.job.user_id == f"user-{n}"})
        spans = [(later[0] - earlier[0]).total_seconds() for earlier, later in zip(times, times[LIMIT:], strict=False)]
        assert spans, "there was demand"
        assert min(spans) >= WINDOW_S, "more than the limit in a window"
        # None below it while there was demand: a refusal had LIMIT admissions in the window before it.
        for event in finished:
            if event.error and event.error.code == "rate-limited" and event.job.user_id == f"user-{n}":
                at = event.job.accepted_at
                before = [t for t, _ in times if 0 <= (at - t).total_seconds() < WINDOW_S]
                assert len(before) == LIMIT
    rows = await deployment.rows()
    assert {json.loads(row["error"])["code"] for row in rows if row["error"]} == {"rate-limited"}
