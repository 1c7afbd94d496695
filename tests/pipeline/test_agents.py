"""Agents in the whole product: a model that follows a script, tools that answer, and processes that die on the way."""

import json
import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from processors.tools.documents import NO_DOCUMENTS
from schemas.ids import direct_job_id
from tests.agents_scene import call, finish
from tests.deployment import Deployment, client_of, register
from tests.pipeline.conftest import Hook
from tests.pipeline.test_direct import SOURCE, cloud_event
from tests.pipeline.test_rest import problem
from tests.sse import Sse
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration
_GOAL, _STEP = re.compile(r"^Goal: (.*)$", re.MULTILINE), re.compile(r"^Step (\d+): ", re.MULTILINE)


class ScriptedApi(OpenAIStandIn):
    """A perfect model. `scripts`: by goal, what it says at each step; `asked`: how often, by goal and step."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: dict[str, list[str]] = {}
        self.asked_at: Counter[tuple[str, int]] = Counter()

    def at(self, prompt: str) -> tuple[str, int] | None:
        found = _GOAL.search(prompt)
        return (found.group(1), len(_STEP.findall(prompt))) if found else None

    def note_call(self, prompt: str) -> None:
        super().note_call(prompt)
        if (at := self.at(prompt)) is not None:
            self.asked_at[at] += 1

    def text(self, prompt: str) -> str:
        at = self.at(prompt)
        return self.scripts[at[0]][at[1]] if at and at[0] in self.scripts else super().text(prompt)


class Site:
    """Another system. `calls`: method and path of each call, with its idempotency key; `says`: by path."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str | None]] = []
        self.says: dict[str, str] = {}
        self.url, self.port = "", 0

    async def handle(self, request: web.Request) -> web.Response:
        self.calls.append((request.method, request.path, request.headers.get("idempotency-key")))
        return web.json_response({"said": self.says.get(request.path, "nothing")})

    def get(self, path: str) -> str:
        return call("external_api", url=self.url + path)

    def post(self, path: str) -> str:
        return call("external_api", method="POST", url=self.url + path, body={"a": 1})

    @asynccontextmanager
    async def serving(self, deployment: Deployment) -> AsyncIterator[None]:
        """There for the deployment's agents, which may call it."""
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        deployment.environment |= {
            "AGENT_API_HOSTS": "127.0.0.1", "EGRESS_ALLOWED_HOSTS": "127.0.0.1", "EGRESS_ALLOWED_PORTS": str(self.port),
        }  # fmt: skip
        try:
            yield
        finally:
            await runner.cleanup()


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with ScriptedApi() as api:
        yield api


@pytest.fixture
async def site(deployment: Deployment) -> AsyncIterator[Site]:
    site = Site()
    async with site.serving(deployment):
        yield site


async def run(client: Any, goal: str, **more: Any) -> str:
    body = {"goal": goal, "agent_id": f"a{uuid.uuid4().hex[:8]}", "max_steps": 5, **more}
    reply = await client.post("/agents/run", json=body)
    assert reply.status_code == 202, reply.text
    return str(reply.json()["job_id"])


async def seen(client: Any, job_id: str, state: str) -> Any:
    """The run, once it has this status or state."""

    async def there() -> Any:
        view = (await client.get(f"/agents/{job_id}")).json()
        return view if state in (view["status"], view.get("state")) else None

    return await until(there, within_s=40)


async def has_vectors(deployment: Deployment, job_id: str) -> list[bool]:
    connection = await asyncpg.connect(deployment.dsn)
    try:
        rows = await connection.fetch("SELECT has_vectors FROM agent_steps WHERE job_id = $1", uuid.UUID(job_id))
    finally:
        await connection.close()
    return [row["has_vectors"] for row in rows]


async def waits_for_its_user(client: Any, job_id: str) -> bool:
    """Also where nobody asks about agents."""
    return bool((await client.get(f"/jobs/{job_id}")).json()["state"] == "requires_action")


async def test_runs_as_they_are_asked_for_and_followed(
    deployment: Deployment, api: ScriptedApi, site: Site, hook: Hook, tmp_path: Path
) -> None:
    ingress = deployment.start("ingress")
    deployment.worker("gate,completion,sink")
    deployment.worker("agent,retrieval", QDRANT_PATH=str(tmp_path / "vectors"))  # whose vectors lie in a folder there
    await deployment.ready()
    site.says["/orders/1"] = "shipped"
    api.scripts["state of order 1?"] = [site.get("/orders/1"), finish("It was shipped.")]
    async with client_of(ingress) as client:
        tools = (await client.get("/agents/tools")).json()["tools"]
        assert [tool["name"] for tool in tools] == ["external_api", "summary", "finish"]
        assert tools[-1]["input_schema"]["required"] == ["answer"]

        job_id = await run(client, "state of order 1?", callback_url=hook.url)
        listening = await Sse().listen(client, f"/jobs/{job_id}/stream")
        assert listening.body["result"]["answer"] == "It was shipped."
        assert listening.text == "It was shipped."
        view = await seen(client, job_id, "completed")
        assert view["result"]["usage"]["total_tokens"] == 24
        assert view["error"] is None
        (first, last) = view["history"]
        assert first["action"] == "external_api"
        assert '"said": "shipped"' in first["observation"]
        assert (last["thought"], last["action_input"]) == ("so", {"answer": "It was shipped."})
        assert (await client.get(f"/jobs/{job_id}")).json()["kind"] == "agent"
        told = [json.loads(record.value) for record in await deployment.records("job-progressed")]
        assert [one["agent"]["step"] for one in told if "agent" in one] == [1, 1, 2, 2]
        started = [one["stage"] for one in told if one["state"] == "started"]
        assert "run_tool" not in started  # the step before it has told: a record a step less
        assert "plan_agent_step" in started
        await until(lambda: hook.calls)
        secret = (await client.get("/webhook-secret")).json()["secret"]
        headers, body = hook.calls[0]
        assert Webhook(secret).verify(body, headers)["data"]["result"]["answer"] == "It was shipped."

        # What the agent remembers, of whose it is only.
        agent_id = f"m{uuid.uuid4().hex[:8]}"
        api.scripts["first"] = [finish("It was blue.")]
        await seen(client, await run(client, "first", agent_id=agent_id), "completed")
        api.scripts["second"] = [finish("As before.")]
        await seen(client, await run(client, "second", agent_id=agent_id), "completed")
        assert any("Goal: second" in prompt and "It was blue." in prompt for prompt in api.calls)
        told = (await client.get(f"/agents/memory/{agent_id}")).json()
        assert told.keys() == {"agent_id", "items", "next"}
        items = told["items"]
        assert [item["observation"] for item in items] == ["As before.", "It was blue."]
        mallory = await register(client, f"mallory-{uuid.uuid4().hex[:6]}")
        problem(await client.get(f"/agents/memory/{agent_id}", headers=mallory), 404, "not-found")
        problem(await client.delete(f"/agents/memory/{agent_id}", headers=mallory), 404, "not-found")
        problem(await client.get(f"/agents/{job_id}", headers=mallory), 404, "not-found")
        assert (await client.delete(f"/agents/memory/{agent_id}")).status_code == 204
        problem(await client.get(f"/agents/memory/{agent_id}"), 404, "not-found")

        # Documents, of which there are none; and what the run meant is kept beside what it was.
        api.scripts["read"] = [call("search", query="bees"), call("vector_search", query="bees"), finish("None.")]
        read = await run(client, "read")
        view = await seen(client, read, "completed")
        assert [step["observation"] for step in view["history"]] == [NO_DOCUMENTS, NO_DOCUMENTS, "None."]
        assert await has_vectors(deployment, read) == [True] * 3

        # By topic, and what is no run of an agent.
        event_id = str(uuid.uuid4())
        value = {"user_id": "root", "kind": "agent", "request": {"goal": "first", "agent_id": "x"}}
        named = [(name, text.encode()) for name, text in cloud_event(event_id).items()]
        await deployment.publish("job-requested", json.dumps(value).encode(), b"root", named)
        by_topic = str(direct_job_id(SOURCE, "root", event_id))

        async def stored() -> Any:
            return (await client.get(f"/agents/{by_topic}")).json().get("status") == "completed"

        await until(stored)
        chat = (await client.post("/chat/async", json={"prompt": "just this"})).json()["job_id"]

        async def answered() -> Any:
            return (await client.get(f"/jobs/{chat}")).json()["status"] == "completed"

        await until(answered)
        problem(await client.get(f"/agents/{chat}"), 404, "not-found")
        problem(await client.post(f"/agents/{job_id}/approve"), 409, "no-action-required")

        # Smart: by the query's parameters and by a body; a model is asked only where rules cannot tell.
        simple = await client.post("/chat/smart/run", params={"query": "What is the capital of France?"})
        assert simple.status_code == 202, simple.text
        view = await seen(client, simple.json()["job_id"], "completed")
        assert view["result"]["meta"]["decision"]["kind"] == "SIMPLE"
        assert (view["result"]["result"]["text"], view["history"]) == (
            "Answer to: What is the capital of France?", [],
        )  # fmt: skip
        query = "Search my contracts for the notice period, then compare it with the policy and draft a letter."
        api.scripts[query] = [finish("Dear all")]
        complex_ = await client.post("/chat/smart/run", json={"query": query, "agent_id": "lawyer"})
        view = await seen(client, complex_.json()["job_id"], "completed")
        assert view["result"]["answer"] == "Dear all"
        assert view["result"]["meta"]["decision"]["by"] == "rules"
        problem(await client.post("/chat/smart/run"), 422, "invalid-body")
        problem(await client.post("/chat/smart/run", params={"query": "x", "agent_id": "a b"}), 422, "invalid-body")


async def test_a_worker_killed_on_the_way_goes_on_at_its_last_step(
    deployment: Deployment, api: ScriptedApi, site: Site
) -> None:
    """What was read says `[held]`, so the second question is never answered before it is killed."""
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    victim = deployment.worker("agent")
    await deployment.ready()
    goals = [f"goal {n}" for n in range(10)]
    for n, goal in enumerate(goals):
        site.says[f"/{n}"] = f"[held] {n}"
        api.scripts[goal] = [site.get(f"/{n}"), finish(f"answer {n}")]
    async with client_of(ingress) as client:
        job_ids = [await run(client, goal) for goal in goals]
        await until(lambda: api.busy == 10)
        victim.kill()
        await until(lambda: api.busy == 0)
        deployment.worker("agent")
        await until(lambda: api.busy == 10, within_s=40)
        api.released.set()
        for n, job_id in enumerate(job_ids):
            view = await seen(client, job_id, "completed")
            assert view["result"]["answer"] == f"answer {n}"
            assert len(view["history"]) == 2
    assert Counter(path for _, path, _ in site.calls) == {f"/{n}": 1 for n in range(10)}
    assert {api.asked_at[goal, 0] for goal in goals} == {1}
    assert {api.asked_at[goal, 1] for goal in goals} == {2}
    outcomes = Counter(record.key for record in await deployment.records("job-finished"))
    assert set(outcomes.values()) == {1}


async def test_a_call_that_waits_for_approval_outlives_every_process(
    deployment: Deployment, api: ScriptedApi, site: Site
) -> None:
    ingress, workers = deployment.start("ingress"), [deployment.worker("gate,sink"), deployment.worker("agent")]
    await deployment.ready()
    for goal in ("yes", "no"):
        api.scripts[goal] = [site.get(f"/{goal}"), site.post(f"/{goal}/order"), finish("done")]
    async with client_of(ingress) as client:
        yes, no = [await run(client, goal) for goal in ("yes", "no")]
        for job_id, goal in ((yes, "yes"), (no, "no")):
            view = await seen(client, job_id, "requires_action")
            wanted = view["requires_action"]
            assert (wanted["step"], wanted["tool"]) == (2, "external_api")
            assert wanted["action_input"]["url"].endswith(f"/{goal}/order")
            await until(lambda job_id=job_id: waits_for_its_user(client, job_id))
        mallory = await register(client, f"mallory-{uuid.uuid4().hex[:6]}")
        problem(await client.post(f"/agents/{yes}/approve", headers=mallory), 404, "not-found")
        for worker in workers:
            worker.kill()
        assert [method for method, _, _ in site.calls] == ["GET", "GET"]
        reply = await client.post(f"/agents/{yes}/approve")
        assert (reply.status_code, reply.json()) == (202, {"job_id": yes, "step": 2, "approval": "approved"})
        assert (await client.post(f"/agents/{no}/reject")).status_code == 202
        problem(await client.post(f"/agents/{no}/approve"), 409, "no-action-required")
        deployment.worker("gate,sink"), deployment.worker("agent")
        approved, rejected = await seen(client, yes, "completed"), await seen(client, no, "completed")
    assert approved["history"][1]["approval"] == "approved"
    assert "has not approved" in rejected["history"][1]["observation"]
    posts = [found for found in site.calls if found[0] == "POST"]
    assert [path for _, path, _ in posts] == ["/yes/order"]
    assert uuid.UUID(posts[0][2])


async def test_a_run_is_cancelled_and_has_a_deadline_within_and_between_its_steps(
    deployment: Deployment, api: ScriptedApi, site: Site
) -> None:
    ingress = deployment.start("ingress")
    deployment.worker("gate,sink"), deployment.worker("agent")
    await deployment.ready()
    site.says["/held"] = "[held]"
    for goal in ("within", "late"):
        api.scripts[goal] = [site.get("/held"), finish("never")]
    api.scripts["between"] = [site.get("/read"), site.post("/out"), finish("never")]
    api.scripts["forever"] = [call("summary", text=f"{n}") for n in range(5)]
    api.scripts["again"] = [call("summary")] * 5
    async with client_of(ingress) as client:
        within, between = await run(client, "within"), await run(client, "between")
        late, forever = await run(client, "late", timeout=1.0), await run(client, "forever")
        again = await run(client, "again")
        await seen(client, between, "requires_action")
        await until(lambda: api.asked_at["within", 1] == 1)
        for job_id in (within, between):
            began = time.monotonic()
            assert (await client.post(f"/jobs/{job_id}/cancel")).status_code in (200, 202)
            assert (await seen(client, job_id, "error"))["error"]["code"] == "cancelled"
            assert time.monotonic() - began < 5
        assert (await seen(client, late, "error"))["error"]["code"] == "timeout"
        await until(lambda: api.busy == 0)
        assert (await seen(client, forever, "error"))["error"]["code"] == "max-steps"
        assert (await seen(client, again, "error"))["error"]["code"] == "repeated-step"
        assert not [found for found in site.calls if found[0] == "POST"]
        problem(await client.post(f"/agents/{between}/approve"), 409, "no-action-required")
