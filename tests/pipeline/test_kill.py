"""kill -9 and stop of workers with jobs in flight: every job ends, each once."""

import asyncio
from collections import Counter

import pytest

from tests.deployment import Deployment, client_of
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


async def accept(client, prompts: list[str]) -> list[str]:
    replies = await asyncio.gather(*(client.post("/chat/async", json={"prompt": prompt}) for prompt in prompts))
    assert {reply.status_code for reply in replies} == {202}
    return [reply.json()["job_id"] for reply in replies]


async def all_completed(deployment: Deployment, job_ids: list[str]) -> None:
    async def done() -> bool:
        rows = await deployment.finished_rows()
        return {str(job_id) for job_id in rows} >= set(job_ids)

    await until(done, within_s=90)
    rows = await deployment.finished_rows()
    assert Counter(row["status"] for row in rows.values()) == {"completed": len(job_ids)}
    assert len(rows) == len(job_ids)


async def test_a_completion_worker_killed_with_200_jobs_in_flight(deployment: Deployment, api: OpenAIStandIn) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    victim = deployment.worker("completion")
    await deployment.ready()
    async with client_of(ingress) as client:
        prompts = [f"question {n} [held]" for n in range(200)]
        job_ids = await accept(client, prompts)
        await until(lambda: api.busy == 200)
        victim.kill()
        api.released.set()
        deployment.worker("completion")
        await all_completed(deployment, job_ids)
    assert set(api.calls) == set(prompts)
    assert max(api.calls.values()) == 2  # what was in flight is asked for again, nothing else is
    outcomes = Counter(record.key for record in await deployment.records("job-finished"))
    assert set(outcomes.values()) == {1}


@pytest.mark.parametrize("role", ["gate", "sink"])
@pytest.mark.long
async def test_a_gate_or_sink_killed_under_load_loses_and_doubles_nothing(
    deployment: Deployment, api: OpenAIStandIn, role: str
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("completion")
    others = {"gate": "sink", "sink": "gate"}[role]
    deployment.worker(others)
    victim = deployment.worker(role, WORKER_ID="heir")
    await deployment.ready()
    async with client_of(ingress) as client:
        prompts = [f"question {n}" for n in range(400)]
        first = await accept(client, prompts[:200])
        victim.kill()
        rest = asyncio.create_task(accept(client, prompts[200:]))
        deployment.worker(role, WORKER_ID="heir")  # under its name, so that nobody waits for the end of a session
        await all_completed(deployment, first + await rest)
    assert set(api.calls) == set(prompts)
    assert max(api.calls.values()) == 1  # the same event twice has one id, and is paid for once


async def test_a_stop_under_load_loses_nothing_and_repeats_nothing(deployment: Deployment, api: OpenAIStandIn) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    victim = deployment.worker("completion")
    await deployment.ready()
    async with client_of(ingress) as client:
        prompts = [f"question {n} [held]" for n in range(200)]
        job_ids = await accept(client, prompts)
        await until(lambda: api.busy == 200)
        stopping = asyncio.create_task(victim.stop())
        await until(lambda: "drains" in victim.log.read_text())
        api.released.set()
        assert await stopping == 0
        deployment.worker("completion")
        await all_completed(deployment, job_ids)
    assert set(api.calls.values()) == {1}
