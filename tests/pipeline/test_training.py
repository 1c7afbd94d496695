"""Training through the whole product, on a stand-in of Qwen3-VL's server: by REST and by topic, whose the adapters are,
cancelled, and kill -9 in the middle of it."""

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from schemas.ids import direct_job_id
from tests.conftest import KafkaForTests
from tests.deployment import Deployment, client_of, register
from tests.forks import Forks
from tests.pipeline.conftest import environment
from tests.pipeline.test_direct import SOURCE, cloud_event
from tests.pipeline.test_rest import problem
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.stand_ins.qwen3vl_api import Qwen3VlStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def qwen() -> AsyncIterator[Qwen3VlStandIn]:
    async with Qwen3VlStandIn() as qwen:
        yield qwen


@pytest.fixture
async def deployment(
    kafka: KafkaForTests, database: str, topic_prefix: str, tmp_path: Path, api: OpenAIStandIn, qwen: Qwen3VlStandIn,
    forks: Forks,
) -> AsyncIterator[Deployment]:  # fmt: skip
    settings = environment(api.base_url) | {
        "ALLOWED_PROVIDERS": '["openai", "qwen3vl", "local"]', "QWEN3_VL_BASE_URL": qwen.base_url,
        "RATE_LIMIT_USER_REQUESTS": "1000", "RATE_LIMIT_ADMIN_REQUESTS": "1000",
    }  # fmt: skip
    deployment = Deployment(kafka, database, topic_prefix, tmp_path, settings, forks=forks)
    await deployment.set_up(partitions=4)
    yield deployment
    deployment.close()


async def ended(client: httpx.AsyncClient, job_id: object, **options: Any) -> dict[str, Any]:
    async def found() -> Any:
        job = (await client.get(f"/jobs/{job_id}", **options)).json()
        return job if job.get("status") in ("completed", "error") else None

    job: dict[str, Any] = await until(found, within_s=60)
    return job


async def taught(client: httpx.AsyncClient, count: int, instruction: str, **options: Any) -> None:
    for number in range(count):
        lesson = {"instruction": instruction, "input": f"mot {number}", "output": f"word {number}"}
        reply = await client.post("/instruction/smart/add", json=lesson, **options)
        await ended(client, reply.json()["job_id"], **options)


async def offered(client: httpx.AsyncClient, **options: Any) -> None:
    """Wait until the ingress has heard who trains."""

    async def told() -> bool:
        reply = await client.post("/instruction/train", json={"name": "x", "provider": "openai"}, **options)
        return "qwen3vl" in reply.json().get("providers", ())

    await until(told)


async def test_an_adapter_from_its_training_to_its_end(deployment: Deployment, qwen: Qwen3VlStandIn) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,training,sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        alice, bob = await register(client, "alice"), await register(client, "bob")
        await offered(client, headers=alice)
        told = problem(
            await client.post("/instruction/train", json={"name": "x", "provider": "local"}, headers=alice), 400,
            "training-unavailable",
        )  # fmt: skip
        assert "training on `local` needs" in told["detail"]
        told = problem(
            await client.post("/instruction/train", json={"name": "x"}, headers=alice), 409, "too-few-examples"
        )
        assert "POST /instruction/smart/add" in told["detail"]
        await taught(client, 5, "Translate.", headers=alice)
        body = {"name": "french", "epochs": 2, "lr": 0.001, "batch_size": 2}
        reply = await client.post("/instruction/train", json=body, headers=alice)
        assert reply.status_code == 202, reply.text
        job = await ended(client, reply.json()["job_id"], headers=alice)
        assert (job["kind"], job["status"]) == ("training", "completed"), job
        assert job["result"]["loss_first"] > job["result"]["loss_last"]
        (training,) = qwen.trainings
        assert training | {"data": 0} == {"data": 0, "epochs": 2, "lr": 0.001, "batch_size": 2}
        assert len(training["data"]) == 4  # a fifth is held out
        await it_is_shown_and_drawn(client, alice, training)
        await it_answers_its_user(client, alice, training)
        await nobody_else_sees_or_uses_it(client, deployment, bob)
        problem(await client.post("/instruction/train", json=body, headers=alice), 409, "adapter-exists")
        await a_training_under_way_tells_and_is_cancelled(client, qwen, bob)
        await a_shared_server_has_one_adapter(client, alice, bob)
        problem(await client.delete("/instruction/adapters/french", headers=bob), 404, "not-found")
        assert (await client.delete("/instruction/adapters/french", headers=alice)).status_code == 204
        problem(await client.get("/instruction/adapters/french", headers=alice), 404, "not-found")
        items = (await client.get("/providers")).json()["items"]
        assert sorted(item["name"] for item in items) == ["openai", "qwen3vl"]  # what trains is no offer to answer


async def it_is_shown_and_drawn(client: httpx.AsyncClient, alice: Any, training: Any) -> None:
    (item,) = (await client.get("/instruction/adapters", headers=alice)).json()["items"]
    assert (item["name"], item["provider"], item["status"]) == ("french", "qwen3vl", "ready")
    assert (item["examples"], item["held_out"]) == (4, 1)
    assert [point["step"] for point in item["losses"]] == [1, 2, 3, 4]
    shown = (await client.get("/instruction/adapters/french", headers=alice)).json()
    (answer,) = shown["answers"]
    assert answer["input"] not in [one["input"] for one in training["data"]]
    assert answer["before"] == f"Answer to: {answer['input']}"
    assert answer["after"] == f"As one who has learnt: {answer['input']}"
    picture = await client.get("/instruction/adapters/french/loss.svg", headers=alice)
    assert picture.headers["content-type"] == "image/svg+xml"
    assert "default-src 'none'" in picture.headers["content-security-policy"]
    assert picture.headers["x-content-type-options"] == "nosniff"
    names = [element.tag.rpartition("}")[2] for element in ElementTree.fromstring(picture.text).iter()]
    assert names.count("polyline") == 1
    assert "script" not in names


async def it_answers_its_user(client: httpx.AsyncClient, alice: Any, training: Any) -> None:
    learnt = training["data"][0]
    body = {"prompt": learnt["input"], "generation_config": {"mode": "lora", "adapter": "french"}}
    answer = (await client.post("/chat/", json=body, headers=alice)).json()
    assert answer["result"]["text"] == learnt["output"]
    assert answer["meta"]["provider"] == "qwen3vl"  # nobody was named: it is its adapter's
    plain = {"prompt": learnt["input"], "provider": "qwen3vl"}
    assert (await client.post("/chat/", json=plain, headers=alice)).json()["result"]["text"] != learnt["output"]
    told = problem(
        await client.post("/chat/", json=body | {"provider": "openai"}, headers=alice), 400, "unsupported-parameter"
    )
    assert told["parameters"] == ["mode"]
    unknown = {"prompt": "x", "generation_config": {"mode": "lora", "adapter": "german"}}
    problem(await client.post("/chat/", json=unknown, headers=alice), 400, "no-such-adapter")


async def nobody_else_sees_or_uses_it(client: httpx.AsyncClient, deployment: Deployment, bob: Any) -> None:
    admin: dict[str, str] = {}
    for headers in (bob, admin):
        assert (await client.get("/instruction/adapters", headers=headers)).json()["items"] == []
        for place in ("/instruction/adapters/french", "/instruction/adapters/french/loss.svg"):
            problem(await client.get(place, headers=headers), 404, "not-found")
    body = {"prompt": "mot 1", "provider": "qwen3vl", "generation_config": {"mode": "lora", "adapter": "french"}}
    assert problem(await client.post("/chat/", json=body, headers=bob), 400, "no-such-adapter")["adapters"] == []
    unnamed = {"prompt": "mot 1", "provider": "qwen3vl", "generation_config": {"mode": "lora"}}
    problem(await client.post("/chat/", json=unnamed, headers=bob), 400, "no-such-adapter")
    job = await ended(client, await published(deployment, "bob", "chat", body), headers=bob)
    assert job["error"]["code"] == "no-such-adapter"


async def published(deployment: Deployment, user_id: str, kind: str, request: dict[str, Any]) -> uuid.UUID:
    event_id = str(uuid.uuid4())
    value = {"user_id": user_id, "kind": kind, "request": request}
    headers = [(name, text.encode()) for name, text in cloud_event(event_id).items()]
    await deployment.publish("job-requested", json.dumps(value).encode(), user_id.encode(), headers)
    return direct_job_id(SOURCE, user_id, event_id)


async def a_training_under_way_tells_and_is_cancelled(
    client: httpx.AsyncClient, qwen: Qwen3VlStandIn, bob: Any
) -> None:
    await taught(client, 4, "Say it. [held]", headers=bob)
    job_id = (await client.post("/instruction/train", json={"name": "bobs"}, headers=bob)).json()["job_id"]

    async def told() -> Any:
        return (await client.get(f"/jobs/{job_id}", headers=bob)).json().get("training")

    assert (await until(told))["epochs"] == 3
    async with client.stream("GET", f"/jobs/{job_id}/stream", headers=bob) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data:") and '"training"' in line:
                break
    (item,) = (await client.get("/instruction/adapters", headers=bob)).json()["items"]
    assert item["status"] == "training"
    assert (await client.post(f"/jobs/{job_id}/cancel", headers=bob)).status_code in (200, 202)
    assert (await ended(client, job_id, headers=bob))["error"]["code"] == "cancelled"
    await until(lambda: is_idle(qwen))

    async def failed() -> bool:
        (item,) = (await client.get("/instruction/adapters", headers=bob)).json()["items"]
        return bool(item["status"] == "failed" and item["error"]["code"] == "interrupted")

    await until(failed)


async def is_idle(qwen: Qwen3VlStandIn) -> bool:
    return qwen.busy == 0


async def a_shared_server_has_one_adapter(client: httpx.AsyncClient, alice: Any, bob: Any) -> None:
    """Since another's training has begun there, it is not known what the server answers with."""
    (item,) = (await client.get("/instruction/adapters", headers=alice)).json()["items"]
    assert item["status"] == "replaced"
    body = {"prompt": "x", "generation_config": {"mode": "lora", "adapter": "french"}}
    problem(await client.post("/chat/", json=body, headers=alice), 400, "no-such-adapter")


async def test_a_training_outlives_a_worker_that_is_killed_with_one_adapter_and_one_outcome(
    deployment: Deployment, qwen: Qwen3VlStandIn
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    first = deployment.worker("training", WORKER_ID="training")
    await deployment.ready()
    async with client_of(ingress) as client:
        await offered(client)
        await taught(client, 4, "Say it. [held]")
        job_id = await published(deployment, "root", "training", {"name": "mine", "epochs": 1})
        await until(lambda: is_busy(qwen))
        first.kill()
        await until(lambda: is_idle(qwen))
        qwen.released.set()
        deployment.worker("training", WORKER_ID="training")
        job = await ended(client, job_id)
        assert job["status"] == "completed", job
        assert len(qwen.trainings) == 2  # anew
        (item,) = (await client.get("/instruction/adapters")).json()["items"]
        assert (item["name"], item["status"], item["job_id"]) == ("mine", "ready", str(job_id))
        outcomes = [one for one in await deployment.records("job-finished") if one.key == str(job_id).encode()]
        assert len(outcomes) == 1


async def is_busy(qwen: Qwen3VlStandIn) -> bool:
    return qwen.busy == 1
