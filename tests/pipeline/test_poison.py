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
