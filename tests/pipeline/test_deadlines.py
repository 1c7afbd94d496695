"""A job that nobody takes up ends all the same, and is then never paid for."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from schemas.ids import direct_job_id
from tests.deployment import Deployment, client_of
from tests.pipeline.test_retries import executed, is_behind, outcomes
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


async def test_a_job_whose_role_does_not_run_ends_expired_with_its_webhook(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    calls: list[dict[str, Any]] = []

    async def hook(request: web.Request) -> web.Response:
        calls.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ingress = deployment.start("ingress")
    deployment.worker("gate")
    deployment.worker("sink")
    deployment.worker("sink")
    await deployment.ready()
    headers = [("ce_id", b"1"), ("ce_source", b"/shop"), ("ce_type", b"job-requested"), ("ce_specversion", b"1.0")]
    job_id = direct_job_id("/shop", "root", "1")
    value = {
        "user_id": "root", "kind": "chat", "request": {"prompt": "nobody answers"}, "expires_after": 1,
        "metadata": {"order": "7"}, "callback_url": f"http://127.0.0.1:{runner.addresses[0][1]}/hook",
    }  # fmt: skip
    await deployment.publish("job-requested", json.dumps(value).encode(), b"root", headers)

    async def has_row() -> bool:
        (row,) = await deployment.rows() or [None]
        return row is not None and bool(row["expires_at"] < datetime.now(UTC))

    await until(has_row)
    assert [row["status"] for row in await deployment.rows()] == ["pending"]
    # As if a minute had gone by.
    await executed(deployment, "UPDATE jobs SET expires_at = expires_at - interval '61 s'")
    async with client_of(ingress) as client:

        async def ended() -> Any:
            view = (await client.get(f"/jobs/{job_id}")).json()
            return view if view["status"] == "error" else None

        view = await until(ended)
        assert view["error"]["code"] == "expired"
        assert view["metadata"] == {"order": "7"}
        await until(lambda: calls)
        assert (calls[0]["type"], calls[0]["data"]) == ("job.failed", view)
        (row,) = await deployment.rows()
        assert row["role"] == "admin"
        await deployment.ready(deployment.worker("completion"))

        async def taken_up() -> bool:
            return not await is_behind(deployment)

        await until(taken_up)  # and passed over, since its outcome is stored
        assert sum((await outcomes(deployment)).values()) == 1
        assert (await client.get(f"/jobs/{job_id}")).json() == view
    assert api.calls == {}
    assert len(calls) == 1
    await runner.cleanup()
