"""Several providers in one request, of which one fails, hangs or refuses, through the whole product."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedded.ports import free_port
from schemas.ids import direct_job_id
from tests.conftest import KafkaForTests
from tests.deployment import Deployment, client_of, register
from tests.forks import Forks
from tests.pipeline.test_kill import all_completed
from tests.pipeline.test_rest import problem
from tests.stand_ins.openai_api import LlamaCppStandIn, OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration
BOTH = ["openai", "local"]
AWAY = "provider-unreachable"


@pytest.fixture
async def local() -> AsyncIterator[LlamaCppStandIn]:
    async with LlamaCppStandIn() as api:
        yield api


@pytest.fixture
async def deployment(
    kafka: KafkaForTests, database: str, topic_prefix: str, tmp_path: Path, local: LlamaCppStandIn, forks: Forks
) -> AsyncIterator[Deployment]:
    """Of OpenAI's API nothing is there but its address: `openai` in the environment's base URL is a free port."""
    port = free_port()
    environment = {
        "ALLOWED_PROVIDERS": json.dumps(BOTH), "OPENAI_API_KEY": "stand-in", "LOCAL_BASE_URL": local.base_url,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "LOCAL_SLOTS": "64", "MAX_RETRIES": "0",
    }  # fmt: skip
    deployment = Deployment(kafka, database, topic_prefix, tmp_path, environment, forks=forks)
    await deployment.set_up(partitions=2)
    yield deployment
    deployment.close()


def openai(deployment: Deployment) -> OpenAIStandIn:
    """Where the deployment looks for it."""
    address = httpx.URL(deployment.environment["OPENAI_BASE_URL"])
    return OpenAIStandIn(port=address.port or 0)


def tries(body: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(attempt["provider"], attempt.get("code")) for attempt in body["meta"]["attempts"]]


async def ended(client: httpx.AsyncClient, job_id: object) -> dict[str, Any]:
    async def view() -> Any:
        reply = await client.get(f"/jobs/{job_id}")
        return reply.status_code == 200 and reply.json()["status"] != "pending" and reply.json()

    found: dict[str, Any] = await until(view)
    return found


async def breaker(client: httpx.AsyncClient) -> str:
    items = {item["name"]: item for item in (await client.get("/providers")).json()["items"]}
    state: str = items["openai"]["breaker"]
    return state


async def test_a_provider_that_is_away_is_gone_around_and_left_alone_until_it_is_back(
    deployment: Deployment, local: LlamaCppStandIn
) -> None:
    deployment.environment |= {"BREAKER_FAILURES": "8", "BREAKER_AFTER_S": "0", "BREAKER_COOL_DOWN_S": "30"}
    ingress, worker = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        reply = await client.post("/chat/", json={"prompt": "sync", "provider": BOTH})
        assert reply.status_code == 200, reply.text
        assert reply.json()["result"]["text"] == "Answer to: sync"
        assert reply.json()["meta"]["provider"] == "local"
        assert tries(reply.json()) == [("openai", AWAY), ("local", None)]

        job_id = (await client.post("/chat/async", json={"prompt": "async", "provider": BOTH})).json()["job_id"]
        assert tries((await ended(client, job_id))["result"]) == [("openai", AWAY), ("local", None)]

        body = problem(await client.post("/chat/", json={"prompt": "x", "provider": [*BOTH, "gemini"]}), 400,
                       "no-such-provider")  # fmt: skip
        assert "the provider gemini is not present" in body["detail"]
        problem(await client.post("/chat/", json={"prompt": "x", "provider": ["local", "local"]}), 422, "invalid-body")
        await by_topic(deployment, client)
        await rehearsed(client)

        async def is_open() -> bool:
            await client.post("/chat/", json={"prompt": "more", "provider": BOTH})
            return await breaker(client) == "open"

        await until(is_open)
        assert await worker.metric("assistant_provider_breaker{", "openai") == 2
        assert await worker.metric("assistant_fallovers_total{", "openai", "unreachable") >= 4
        reply = await client.post("/chat/", json={"prompt": "around", "provider": BOTH})
        assert tries(reply.json()) == [("openai", "breaker-open"), ("local", None)]
        reply = await client.post("/chat/", json={"prompt": "nowhere", "provider": "openai", "timeout": 5.0})
        problem(reply, 503, "breaker-open")
        assert 1 <= int(reply.headers["retry-after"]) <= 30
        assert local.calls["around"] == 1
        job_id = (await client.post("/chat/async", json={"prompt": "later", "provider": "openai"})).json()["job_id"]

        async def waits() -> bool:
            return bool((await client.get(f"/jobs/{job_id}")).json().get("state") == "waiting")

        await until(waits)  # put off, and not failed


async def by_topic(deployment: Deployment, client: httpx.AsyncClient) -> None:
    async def ask(event_id: str, **request: Any) -> dict[str, Any]:
        headers = {
            "ce_id": event_id, "ce_source": "/tests", "ce_specversion": "1.0", "ce_type": "job-requested",
            "content-type": "application/json",
        }  # fmt: skip
        value = {"user_id": "root", "kind": "chat", "request": {"prompt": event_id, **request}}
        told = [(name, text.encode()) for name, text in headers.items()]
        await deployment.publish("job-requested", json.dumps(value).encode(), b"root", told)
        return await ended(client, direct_job_id("/tests", "root", event_id))

    assert tries((await ask("t-1", provider=BOTH))["result"]) == [("openai", AWAY), ("local", None)]
    refused = await ask("t-2", provider=["local", "gemini"])
    assert refused["error"]["code"] == "no-such-provider"
    assert "gemini" in refused["error"]["message"]


async def rehearsed(client: httpx.AsyncClient) -> None:
    wanted = {"prompt": "rehearsed", "provider": ["local", "openai"],
              "generation_config": {"simulate_failure": ["local"]}}  # fmt: skip
    others = {**wanted, "provider": BOTH, "generation_config": {"simulate_failure": ["openai"]}}
    assert tries((await client.post("/chat/", json=others)).json()) == [("openai", AWAY), ("local", None)]
    user = await register(client, f"user-{uuid.uuid4().hex[:8]}")
    problem(await client.post("/chat/", json=wanted, headers=user), 403, "not-allowed")


async def test_a_provider_that_comes_back_is_found_by_one_call(deployment: Deployment) -> None:
    deployment.environment |= {"BREAKER_FAILURES": "1", "BREAKER_AFTER_S": "0", "BREAKER_COOL_DOWN_S": "0.5"}
    ingress, worker = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        assert (await client.post("/chat/", json={"prompt": "x", "provider": BOTH})).status_code == 200
        assert await worker.metric("assistant_provider_breaker_opened_total{", "openai") == 1
        async with openai(deployment) as api:

            async def is_asked() -> bool:
                reply = await client.post("/chat/", json={"prompt": "back?", "provider": BOTH})
                return bool(reply.json()["meta"]["provider"] == "openai")

            await until(is_asked)
            assert api.calls["back?"] == 1
            assert await worker.metric("assistant_provider_breaker{", "openai") == 0


async def test_one_that_hangs_is_left_in_time_and_slows_nobody(deployment: Deployment, local: LlamaCppStandIn) -> None:
    deployment.environment["PROVIDER_CONCURRENCY"] = '{"openai": 50}'
    async with openai(deployment) as api:
        ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
        await deployment.ready()
        async with client_of(ingress) as client:
            hanging = {"prompt": "[mode=hang]", "provider": "openai"}
            await asyncio.gather(*(client.post("/chat/async", json=hanging) for _ in range(40)))
            await until(lambda: api.busy == 40)
            asked = [client.post("/chat/", json={"prompt": f"{n}", "provider": "local"}) for n in range(40)]
            assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}
            assert api.busy == 40  # they hang as before, and all of these were answered
            local.mode = "answer"
            reply = await client.post("/chat/", json={"prompt": "[mode=too-long]", "provider": BOTH})
            problem(reply, 502, "context-too-long")  # by both
            api.mode = "hang"
            reply = await client.post("/chat/", json={"prompt": "in time", "provider": BOTH, "timeout": 2.0})
            assert reply.status_code == 200, reply.text
            assert tries(reply.json()) == [("openai", "timeout"), ("local", None)]
            # Half of the time that was left; the call as a whole goes by the machine's speed, too.
            assert 800 < reply.json()["meta"]["attempts"][0]["ms"] < 1500


async def test_a_worker_killed_in_the_middle_of_a_hop_leaves_one_outcome(
    deployment: Deployment, local: LlamaCppStandIn
) -> None:
    deployment.environment["BREAKER_FAILURES"] = "1000"
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    victim = deployment.start(
        "worker", "--roles", "completion", module="chaos.under_test", FAIL="generate_completion.after_ack:exit@7",
        WORKER_ID="completion",
    )  # fmt: skip
    await deployment.ready()
    async with client_of(ingress) as client:
        asked = [client.post("/chat/async", json={"prompt": f"{n}", "provider": BOTH}) for n in range(30)]
        job_ids = [reply.json()["job_id"] for reply in await asyncio.gather(*asked)]
        await until(lambda: victim.popen.poll() is not None)
        heir = deployment.worker("completion", WORKER_ID="completion")
        await deployment.ready(heir)
        await all_completed(deployment, job_ids)
    hops = await deployment.records("completion-requested-local")
    assert len(hops) >= 30
    assert len({dict(record.headers)["ce_id"] for record in hops}) == 30  # the same hop has the same id
    finished = await deployment.records("job-finished")
    assert len({dict(record.headers)["ce_id"] for record in finished}) == 30
    for row in (await deployment.finished_rows()).values():
        assert tries(json.loads(row["result"])) == [("openai", AWAY), ("local", None)]
    assert sum(local.calls.values()) < 60  # what was in hand at the kill is asked again


@pytest.mark.parametrize("limited", [True, pytest.param(False, marks=pytest.mark.long)])
async def test_a_burst_is_no_storm_of_429(deployment: Deployment, limited: bool) -> None:
    """A hundred jobs at a provider that takes fifteen a second: a busy machine sends faster than that."""
    limit = '{"openai": 900}' if limited else ""
    deployment.environment |= {"PROVIDER_REQUESTS_PER_MINUTE": limit, "MAX_RETRIES": "3"}
    async with openai(deployment) as api:
        api.per_s = 15.0
        ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
        await deployment.ready()
        async with client_of(ingress) as client:
            job_ids: list[str] = []

            async def ask(n: int) -> None:
                reply = await client.post("/chat/async", json={"prompt": f"{n}", "provider": "openai"})
                job_ids.append(reply.json()["job_id"])

            async def waits() -> bool:
                views = [(await client.get(f"/jobs/{job_id}")).json() for job_id in job_ids[-3:]]
                return any(view.get("stage") == "waiting-for-provider" for view in views)

            asking = asyncio.gather(*(ask(n) for n in range(100)))
            if limited:
                await until(waits)  # seen while they are still being sent, however long that takes
            await asking
            await all_completed(deployment, job_ids)
    assert api.refused <= (10 if limited else 90)  # without a limit at most once each, and hardly one again
