"""Nobody there to do it: refused before anything is published, until somebody is."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.deployment import Deployment, client_of
from tests.pipeline.test_rest import problem
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("role", [pytest.param("completion", marks=pytest.mark.long), "gate"])
async def test_a_role_that_is_absent_for_too_long_refuses_until_it_is_back(
    deployment: Deployment, api: OpenAIStandIn, role: str
) -> None:
    others = {"completion": "gate,sink", "gate": "completion,sink"}[role]
    ingress, _ = deployment.start("ingress", MAX_QUEUE_WAIT_S="3"), deployment.worker(others)
    worker = deployment.worker(role)
    await deployment.ready()
    async with client_of(ingress) as client:

        async def heard_of() -> bool:
            reply = await client.post("/chat/", json={"prompt": "before"})
            return reply.status_code == 200

        await until(heard_of)
        await worker.stop()

        async def refused() -> httpx.Response | None:
            reply = await client.post("/inference/", json={"prompt": "meanwhile"})
            return reply if reply.status_code == 503 else None

        reply = await until(refused, within_s=10)
        assert problem(reply, 503, "overloaded")["retry_after_s"] == int(reply.headers["retry-after"]) > 0
        requested = len(await deployment.records("job-requested"))
        for path in ("/chat/", "/chat/async"):
            for headers in ({}, {"idempotency-key": "k"}):
                reply = await client.post(path, json={"prompt": "never published"}, headers=headers)
                problem(reply, 503, "overloaded")
        assert len(await deployment.records("job-requested")) == requested
        deployment.worker(role)

        async def taken() -> bool:
            reply = await client.post("/chat/", json={"prompt": "after"}, headers={"idempotency-key": "k"})
            return reply.status_code == 200

        await until(taken, within_s=30)
    assert "never published" not in api.calls


@pytest.mark.long
async def test_a_stage_that_does_not_keep_up_refuses_until_it_has(deployment: Deployment, api: OpenAIStandIn) -> None:
    deployment.environment |= {"MAX_QUEUE_WAIT_S": "5", "COMPLETION_CONCURRENCY": "4"}
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        asked = [client.post("/chat/async", json={"prompt": f"{n} [delay=1]"}) for n in range(80)]  # four a second
        assert {reply.status_code for reply in await asyncio.gather(*asked)} == {202}

        async def answer(status: int) -> httpx.Response | None:
            reply = await client.post("/chat/async", json={"prompt": "one more"})
            return reply if reply.status_code == status else None

        async def refused() -> Any:
            return await answer(503)

        async def taken() -> Any:
            return await answer(202)

        reply = await until(refused, within_s=25)
        assert "jobs wait for" in problem(reply, 503, "overloaded")["detail"]
        await until(taken, within_s=60)
