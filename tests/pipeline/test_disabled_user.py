"""A user who is disabled, while all that can run and wait for them does: at two replicas, within five seconds."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.deployment import Deployment, client_of, plain_client, register
from tests.pipeline.accounts_scene import WITHIN_S, bearer, code_of, log_in, name, new_key, shut_out
from tests.pipeline.test_rest import problem
from tests.sse import Sse
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


async def test_a_disabled_user_is_out_everywhere_with_all_that_runs_and_waits(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    replicas = [deployment.start("ingress") for _ in range(2)]
    deployment.worker("gate,sink")
    deployment.worker("completion", COMPLETION_CONCURRENCY="2")
    await deployment.ready()
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(client_of(replicas[0]))
        there = await stack.enter_async_context(plain_client(base_url=replicas[1].http, timeout=60))
        user_id = name("mallory")
        token = await register(admin, user_id)
        key = bearer((await new_key(admin, token))["key"])

        async def ask(prompt: str, headers: dict[str, str]) -> str:
            reply = await there.post("/chat/async", json={"prompt": prompt}, headers=headers)
            assert reply.status_code == 202, reply.text
            return str(reply.json()["job_id"])

        postponed = await ask("[mode=503] tried again later", token)
        await until(lambda: api.calls["[mode=503] tried again later"] == 2)

        async def is_put_off() -> Any:
            return (await admin.get(f"/jobs/{postponed}")).json().get("state") == "waiting"

        await until(is_put_off)
        # One of somebody else, and as many as there are places: what comes after that waits in its topic.
        others = (await admin.post("/chat/async", json={"prompt": "[mode=hang] of the admin"})).json()["job_id"]
        hanging = [await ask("[mode=hang] by a token", token)]
        await until(lambda: api.busy == 2)
        waiting = [await ask(f"waits {n}", each) for n, each in enumerate((token, key) * 3)]
        async with AsyncExitStack() as streams:
            listening: list[asyncio.Task[Any]] = []
            for headers in (token, key):
                client = await streams.enter_async_context(
                    plain_client(base_url=replicas[1].http, timeout=60, headers=headers)
                )
                listening.append(asyncio.create_task(Sse().listen(client, f"/jobs/{hanging[0]}/stream")))
                waits = asyncio.create_task(client.post("/chat/", json={"prompt": f"waits for {len(listening)}"}))
                listening.append(waits)
            await until(lambda: replicas[1].metric("assistant_stream_listeners"))
            began = time.monotonic()
            assert (await admin.patch(f"/users/{user_id}", json={"disabled": True})).status_code == 200
            for headers in (token, key):
                await shut_out([admin, there], headers, since=began)
            await until(lambda: all(one.done() for one in listening), within_s=WITHIN_S)
            by_token, sync_by_token, by_key, sync_by_key = await asyncio.gather(*listening)
        for stream in (by_token, by_key):
            assert stream.body["error"]["code"] in ("access-revoked", "user-disabled")
        for reply in (sync_by_token, sync_by_key):
            problem(reply, 401, "user-disabled")

        async def all_ended() -> bool:
            return all([await code_of(admin, job_id) == "user-disabled" for job_id in (postponed, *hanging, *waiting)])

        await until(all_ended, within_s=began + WITHIN_S - time.monotonic())
        assert api.busy == 1  # the admin's goes on
        assert await code_of(admin, others) is None
        assert not [prompt for prompt in api.calls if prompt.startswith("waits")]
        problem(await log_in(there, user_id), 401, "wrong-credentials")

        # And in again: what was revoked stays so, the key does not.
        assert (await admin.patch(f"/users/{user_id}", json={"disabled": False})).status_code == 200
        await shut_out([admin, there], token, since=time.monotonic())
        assert (await admin.get("/jobs", headers=key)).status_code == 200
        assert (await log_in(there, user_id)).status_code == 200
