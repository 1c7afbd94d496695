"""A worker that lives and does nothing ends itself; its jobs go on elsewhere, as those of one that was killed do."""

import os
import signal
import time

import httpx
import pytest

from streams.watchdog import EXIT_CODE
from tests.deployment import Deployment, Process, client_of
from tests.pipeline.test_kill import accept, all_completed
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration
STALL_S = 5.0


def hanging_worker(deployment: Deployment, roles: str) -> Process:
    return deployment.start(roles, module="tests.streams.watchdog_app", STALL_TIMEOUT=str(STALL_S))


async def ends(process: Process, *, within_s: float) -> None:
    async def ended() -> bool:
        return process.popen.poll() is not None

    await until(ended, within_s=within_s)
    assert process.popen.returncode == EXIT_CODE, process.log.read_text()


async def has_looked(process: Process) -> bool:
    async with httpx.AsyncClient(timeout=5) as client:
        return "assistant_stage_lag{" in (await client.get(f"{process.http}/metrics")).text


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGUSR1, "the event loop has not turned for"), (signal.SIGUSR2, "records wait and nothing was delivered")],
)
async def test_a_worker_that_hangs_ends_itself_and_its_jobs_go_on_elsewhere(
    deployment: Deployment, api: OpenAIStandIn, number: signal.Signals, said: str
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    hanging = hanging_worker(deployment, "completion")
    await deployment.ready()
    async with client_of(ingress) as client:
        await all_completed(deployment, await accept(client, [f"before {n}" for n in range(8)]))
        await until(lambda: has_looked(hanging))  # at what waits: else the stop may meet its first look
        began = time.monotonic()
        os.kill(hanging.popen.pid, number)
        if number == signal.SIGUSR2:  # what was asked for before is still delivered
            await until(lambda: "nothing is fetched any more" in hanging.log.read_text())
        job_ids = await accept(client, [f"after {n}" for n in range(8)])
        await ends(hanging, within_s=60)
        assert time.monotonic() - began > STALL_S - 1
        assert said in hanging.log.read_text()
        deployment.worker("completion")

        async def done() -> bool:
            return {str(job_id) for job_id in await deployment.finished_rows()} >= set(job_ids)

        await until(done)
    # What was done and not committed yet when the loop stopped is done again, as after any kill.
    assert max(api.calls.values()) == 1 if number == signal.SIGUSR2 else max(api.calls.values()) <= 2


async def test_a_worker_with_its_hands_full_for_long_is_left_alone(deployment: Deployment, api: OpenAIStandIn) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    busy = deployment.worker("completion", STALL_TIMEOUT=str(STALL_S), COMPLETION_CONCURRENCY="2")
    await deployment.ready()
    async with client_of(ingress) as client:
        job_ids = await accept(client, [f"{n} [delay=7]" for n in range(2)])
        await until(lambda: api.busy == 2)
        job_ids += await accept(client, [f"{n} waits" for n in range(4)])
        await all_completed(deployment, job_ids)
    assert busy.popen.poll() is None


async def test_a_killed_workers_jobs_are_taken_over_within_12_s(deployment: Deployment, api: OpenAIStandIn) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    victim, other = deployment.worker("completion"), deployment.worker("completion")
    await deployment.ready()

    async with client_of(ingress) as client:

        async def both_have_partitions() -> bool:
            items = (await client.get("/workers")).json()["items"]
            having = [item for item in items if item["roles"] == ["completion"] and item["partitions"]]
            return len(having) == 2

        await until(both_have_partitions)
        prompts = [f"question {n} [held]" for n in range(40)]
        job_ids = await accept(client, prompts)
        await until(lambda: api.busy == 40)
        victim.kill()
        killed = time.monotonic()
        await until(lambda: max(api.calls.values()) == 2, within_s=12)
        taken_over = time.monotonic() - killed
        print(f"first redelivered call {taken_over:.1f} s after the kill")
        api.released.set()
        await all_completed(deployment, job_ids)
    assert other.popen.poll() is None
    assert max(api.calls.values()) == 2
