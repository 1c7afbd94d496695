"""One job through: REST, topics, Postgres; waited for and polled."""

import pytest

from tests.deployment import Deployment, client_of
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


async def test_a_prompt_is_answered_by_waiting_and_by_polling(deployment: Deployment, api: OpenAIStandIn) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        reply = await client.post("/chat/", json={"prompt": "Why is the sky blue?"})
        assert reply.status_code == 200, reply.text
        body = reply.json()
        assert body["result"] == {"text": "Answer to: Why is the sky blue?", "finish_reason": "stop"}
        assert body["usage"]["total_tokens"] == 12
        assert [attempt["provider"] for attempt in body["meta"]["attempts"]] == ["openai"]
        assert reply.headers["ratelimit"].startswith('"default";r=')

        reply = await client.post("/chat/async", json={"prompt": "and the sea?"})
        assert reply.status_code == 202, reply.text
        path = reply.headers["location"]

        async def completed() -> object:
            view = (await client.get(path)).json()
            return view if view["status"] == "completed" else None

        view = await until(completed)
        assert view["result"]["result"]["text"] == "Answer to: and the sea?"
        assert [timing["stage"] for timing in view["timings"]] == [
            "sanitize_prompt", "limit_rate", "route_job", "generate_completion",
        ]  # fmt: skip
        short = (await client.get(path.replace("jobs", "inference"))).json()
        assert short.keys() == {"job_id", "status", "result"}
        listed = (await client.get("/jobs")).json()
        assert [item["job_id"] for item in listed["items"]] == [view["job_id"], body["meta"]["job_id"]]
        assert api.calls["Why is the sky blue?"] == 1
