"""What comes again after a kill is not paid for again where its outcome is stored."""

import pytest

from tests.deployment import Deployment, client_of
from tests.pipeline.test_kill import accept, all_completed
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


async def test_nobody_is_paid_twice_for_a_job_whose_outcome_is_stored(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    victim = deployment.start(
        "worker", "--roles", "completion", module="tests.pipeline.uncommitting_worker", WORKER_ID="completion"
    )
    await deployment.ready()
    async with client_of(ingress) as client:
        job_ids = await accept(client, [f"question {n}" for n in range(100)])
        await all_completed(deployment, job_ids)
        victim.kill()  # all is done, nothing of it committed: all comes again
        heir = deployment.worker("completion", WORKER_ID="completion")
        await deployment.ready(heir)
        last = await accept(client, [f"question {n} after" for n in range(20)])  # some on each partition, behind them
        await all_completed(deployment, job_ids + last)
        metrics = await until(lambda: heir.metric("assistant_stage_events_total", "already-ended"), within_s=30)
    assert metrics == 100
    assert set(api.calls.values()) == {1}


async def test_while_postgres_is_away_what_comes_again_runs_again(deployment: Deployment, api: OpenAIStandIn) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    victim = deployment.start(
        "worker", "--roles", "completion", module="tests.pipeline.uncommitting_worker", WORKER_ID="completion"
    )
    await deployment.ready()
    async with client_of(ingress) as client:
        job_ids = await accept(client, [f"question {n}" for n in range(20)])
        await all_completed(deployment, job_ids)
        victim.kill()
        nowhere = "postgresql://nobody:nothing@127.0.0.1:1/nothing"
        deployment.worker("completion", WORKER_ID="completion", DATABASE_URL=nowhere)
        await until(lambda: set(api.calls.values()) == {2}, within_s=60)  # at least once, rather than never
        await all_completed(deployment, job_ids)
