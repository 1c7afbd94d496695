"""A second worker joins while the first has its hands full: what it takes over, and what stays."""

import asyncio
import json
from collections import Counter

import pytest

from schemas.events import CompletionRequested, WorkerHeartbeat
from tests.deployment import Deployment, Process, client_of
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration
TOPIC = "completion-requested-openai"
PARTITIONS = {0, 1, 2, 3}


async def owned(deployment: Deployment) -> dict[str, set[int]]:
    """Address of each completion worker -> its partitions of the work, as it last told."""
    newest: dict[str, WorkerHeartbeat] = {}
    for record in await deployment.records("worker-heartbeat"):
        beat = WorkerHeartbeat.model_validate_json(record.value)
        if "completion" in beat.roles and beat.http:
            newest[beat.http] = beat
    return {http: set(beat.partitions.get(deployment.prefix + TOPIC, ())) for http, beat in newest.items()}


@pytest.mark.long
async def test_a_worker_joins_under_load_and_nothing_is_done_twice_but_what_outlasts_the_drain(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    first = deployment.worker("completion")
    await deployment.ready()
    joined = asyncio.Event()
    async with client_of(ingress) as client:

        async def ask(prompt: str) -> str:
            reply = await client.post("/chat/async", json={"prompt": prompt, "timeout": 120})
            assert reply.status_code == 202, reply.text
            return str(reply.json()["job_id"])

        held = [f"held {n} [mode=hold]" for n in range(60)]
        job_ids = await asyncio.gather(*map(ask, held))
        await until(lambda: api.busy == len(held))

        async def keep_asking() -> list[str]:
            asked: list[str] = []
            while not joined.is_set() or len(asked) < 100:
                asked.append(await ask(f"short {len(asked)} [delay=0.3]"))
            return asked

        asking = asyncio.create_task(keep_asking())
        second = deployment.worker("completion")

        async def shared_out() -> bool:
            by_worker = await owned(deployment)
            both = by_worker.get(first.http, set()), by_worker.get(second.http, set())
            return all(both) and both[0] | both[1] == PARTITIONS and not both[0] & both[1]

        await until(shared_out, within_s=90)
        theirs = (await owned(deployment))[second.http]
        partition = {
            CompletionRequested.model_validate_json(record.value).request.prompt: record.partition
            for record in await deployment.records(TOPIC)
        }
        moved = {prompt for prompt in held if partition[prompt] in theirs}
        stayed = set(held) - moved
        assert moved
        assert stayed
        await until(lambda: all(api.calls[prompt] == 2 for prompt in moved))  # they outlast the drain
        joined.set()
        short = await asking
        api.released.set()
        await _all_completed(deployment, [*job_ids, *short])
    # What came back to the first worker was adopted: it is not asked for again.
    assert {api.calls[prompt] for prompt in stayed} == {1}
    assert {api.calls[prompt] for prompt in moved} == {2}
    assert {calls for prompt, calls in api.calls.items() if prompt.startswith("short")} == {1}
    assert await deployment.records("dead-letters") == []
    await _nothing_is_left(deployment, first, second)


async def _all_completed(deployment: Deployment, job_ids: list[str]) -> None:
    async def done() -> bool:
        return {str(job_id) for job_id in await deployment.finished_rows()} >= set(job_ids)

    await until(done, within_s=60)
    rows = await deployment.rows()
    assert Counter(row["status"] for row in rows) == {"completed": len(job_ids)}
    texts = {json.loads(row["result"])["result"]["text"] for row in rows}
    assert len(texts) == len(job_ids) - 60 + 1  # those held have one answer, the others one each


async def _nothing_is_left(deployment: Deployment, *workers: Process) -> None:
    """Neither of them has died of it, and both stop at once, as those do who have nothing in hand."""
    for worker in workers:
        assert worker.popen.poll() is None
    assert await asyncio.gather(*(worker.stop(within_s=20) for worker in workers)) == [0, 0]
