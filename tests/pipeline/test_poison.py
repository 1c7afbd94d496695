"""An event that kills its process is found after three deaths; its neighbours are done."""

import asyncio
import json
from collections import Counter

import pytest

from tests.deployment import Deployment, Process, client_of
from tests.pipeline.test_kill import accept
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


async def keep_running(deployment: Deployment, role: str, deaths: list[int]) -> None:
    """As a supervisor would: start it again whenever it has died."""
    while True:
        worker: Process = deployment.start(
            "worker", "--roles", role, module="tests.pipeline.poisoned_worker", WORKER_ID="poisoned"
        )  # fmt: skip
        deaths.append(await asyncio.to_thread(worker.popen.wait))


@pytest.mark.parametrize("role", ["completion", pytest.param("gate", marks=pytest.mark.long)])
async def test_a_poisonous_event_is_dead_lettered_after_three_deaths_and_its_neighbours_are_done(
    deployment: Deployment, api: OpenAIStandIn, role: str
) -> None:
    others = {"completion": "gate,sink", "gate": "completion,sink"}[role]
    ingress, _ = deployment.start("ingress"), deployment.worker(others)
    await deployment.ready()
    prompts = [f"question {n}" for n in range(60)]
    prompts[30] += f" [poison={role}]"
    async with client_of(ingress) as client:
        job_ids = await accept(client, prompts)
        deaths: list[int] = []
        keeper = asyncio.create_task(keep_running(deployment, role, deaths))

        async def all_ended() -> bool:
            return len(await deployment.finished_rows()) == len(prompts)

        await until(all_ended, within_s=120)
        keeper.cancel()
    rows = await deployment.finished_rows()
    codes = Counter(json.loads(row["error"])["code"] if row["error"] else None for row in rows.values())
    assert codes == {None: 59, "crashed-worker": 1}
    assert next(str(job_id) for job_id, row in rows.items() if row["status"] == "error") == job_ids[30]
    assert len(deaths) == 3
    (letter,) = await deployment.records("dead-letters")
    assert dict(letter.headers)["dlq-code"] == b"crashed-worker"
    assert set(api.calls) == {prompt for prompt in prompts if "poison" not in prompt}
    assert max(api.calls.values()) <= 3  # once per death at most, and never after their outcome was stored


@pytest.mark.long
async def test_two_at_once_are_found_one_after_the_other(deployment: Deployment, api: OpenAIStandIn) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    await deployment.ready()
    prompts = [f"question {n} [delay=1]" for n in range(120)]
    for place in (50, 70):
        prompts[place] += " [poison=completion]"
    async with client_of(ingress) as client:
        job_ids = await accept(client, prompts)
        deaths: list[int] = []
        keeper = asyncio.create_task(keep_running(deployment, "completion", deaths))

        async def all_ended() -> bool:
            return len(await deployment.finished_rows()) == len(prompts)

        # One after another, as all of them once were, 120 answers of a second each would take longer.
        await until(all_ended, within_s=100)
        keeper.cancel()
    rows = {str(job_id): row for job_id, row in (await deployment.finished_rows()).items()}
    assert {job_id for job_id, row in rows.items() if row["status"] == "error"} == {job_ids[50], job_ids[70]}
    assert 4 <= len(deaths) <= 6  # three each at most
    assert set(api.calls) == {prompt for prompt in prompts if "poison" not in prompt}
