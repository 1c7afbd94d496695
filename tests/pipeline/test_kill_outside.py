"""kill -9 where work comes in and goes out: what was accepted ends once, and whoever asked to be told is told."""

import asyncio
import json
from collections import Counter

import httpx
import pytest

from tests.deployment import Deployment, client_of
from tests.pipeline.test_kill import all_completed
from tests.pipeline.test_retries import executed
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.stand_ins.webhook_receiver import WebhookReceiver
from tests.waiting import until

pytestmark = pytest.mark.integration


async def test_an_ingress_killed_under_load_has_lost_nothing_that_it_accepted(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    victim, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    accepted: dict[str, str] = {}
    unknown: list[str] = []
    async with client_of(victim) as client:

        async def ask(caller: int) -> None:
            for n in range(1000):
                prompt = f"caller {caller}, question {n}"
                try:
                    reply = await client.post("/chat/async", json={"prompt": prompt})
                except httpx.HTTPError:
                    unknown.append(prompt)
                    return
                assert reply.status_code == 202, reply.text
                accepted[reply.json()["job_id"]] = prompt

        asking = [asyncio.create_task(ask(caller)) for caller in range(20)]
        await until(lambda: len(accepted) > 200)
        victim.kill()
        await asyncio.gather(*asking)
    assert len(unknown) == 20  # each was cut off in the middle of a request

    async def all_ended() -> bool:
        rows = await deployment.rows()
        ended = {str(row["job_id"]) for row in rows if row["status"] == "completed"}
        return accepted.keys() <= ended and len(ended) == len(rows)

    await until(all_ended, within_s=60)
    rows = await deployment.finished_rows()
    asked_for = Counter(json.loads(row["result"])["prompt"] for row in rows.values())
    assert set(asked_for.values()) == {1}
    assert set(asked_for) - set(accepted.values()) <= set(unknown)  # some of those had arrived, and none of no one's
    assert api.calls == asked_for
    again = deployment.start("ingress")
    await deployment.ready(again)
    async with client_of(again) as client:
        for job_id, prompt in list(accepted.items())[:20]:
            assert (await client.get(f"/jobs/{job_id}")).json()["result"]["prompt"] == prompt


@pytest.mark.long
async def test_a_sink_killed_while_webhooks_go_out_leaves_nobody_untold(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion")
    victim = deployment.worker("sink")
    await deployment.ready()
    async with WebhookReceiver() as receiver, client_of(ingress) as client:

        async def accept(count: int, mark: str) -> list[str]:
            bodies = [{"prompt": f"{mark} {n}", "callback_url": receiver.url} for n in range(count)]
            replies = await asyncio.gather(*(client.post("/chat/async", json=body) for body in bodies))
            assert {reply.status_code for reply in replies} == {202}
            return [reply.json()["job_id"] for reply in replies]

        job_ids = await accept(200, "before")
        await until(lambda: len(receiver.received) > 20)
        victim.kill()
        job_ids += await accept(100, "after")
        # What was under way when it was killed is sent again once its lease has run out: as if a minute had gone by.
        await executed(deployment, "UPDATE webhooks SET leased_until = leased_until - interval '60 s'")
        deployment.worker("sink")
        await all_completed(deployment, job_ids)
        await until(lambda: len(receiver.received) == len(job_ids), within_s=120)

        async def all_recorded() -> bool:
            attempts = [(await client.get(f"/jobs/{job_id}/webhooks")).json()["items"] for job_id in job_ids]
            return all(items and items[-1].get("status_code") == 200 for items in attempts)

        await until(all_recorded, within_s=120)
        told = {webhook_id: set(bodies) for webhook_id, bodies in receiver.received.items()}
        assert {len(bodies) for bodies in told.values()} == {1}  # however often, always the same
        assert sorted(json.loads(body)["data"]["job_id"] for (body,) in told.values()) == sorted(job_ids)
        repeated = sum(len(bodies) - 1 for bodies in receiver.received.values())
        assert repeated <= 4  # what may be under way at once to one host
