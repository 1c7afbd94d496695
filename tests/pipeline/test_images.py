"""Images through the whole product: every way in, whose they are, what topics hold of them, and kill -9."""

import base64
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from schemas.ids import direct_job_id
from schemas.topics import event_type
from tests.deployment import Deployment, client_of, register
from tests.pictures import GIF, base64_of, png
from tests.pipeline.test_direct import SOURCE, cloud_event
from tests.pipeline.test_rest import problem
from tests.stand_ins.model_api import Call
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration
LARGE = png(100, 100, size=3_000_000)


class Viewer(OpenAIStandIn):
    """`seen`: of each call that has one, its prompt and image."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bytes]] = []

    def read_call(self, method: str, path: str, body: dict[str, Any]) -> Call | None:
        call = super().read_call(method, path, body)
        content = body.get("messages", [{"content": ""}])[-1]["content"]
        if call is not None and not isinstance(content, str):
            for part in content:
                if part["type"] == "image_url":
                    self.seen.append((call.prompt, base64.b64decode(part["image_url"]["url"].partition(",")[2])))
        return call


@pytest.fixture
async def api() -> AsyncIterator[Viewer]:
    async with Viewer() as api:
        yield api


async def ended(deployment: Deployment, job_id: uuid.UUID) -> Any:
    async def row() -> Any:
        return (await deployment.finished_rows()).get(job_id)

    return await until(row, within_s=60)


async def published(deployment: Deployment, prompt: str, image: Any, user_id: str = "root") -> uuid.UUID:
    """An event straight to the topic; its job."""
    event_id = str(uuid.uuid4())
    value = {"user_id": user_id, "kind": "chat", "request": {"prompt": prompt, "image": image}}
    headers = [(name, text.encode()) for name, text in cloud_event(event_id).items()]
    await deployment.publish("job-requested", json.dumps(value).encode(), user_id.encode(), headers)
    return direct_job_id(SOURCE, user_id, event_id)


async def test_an_image_comes_to_the_provider_by_every_way_and_is_its_users_alone(
    deployment: Deployment, api: Viewer
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        reply = await client.post("/chat/", json={"prompt": "in base64", "image": base64_of(LARGE)})
        assert reply.status_code == 200, reply.text
        url = f"data:image/gif;base64,{base64_of(GIF)}"
        streamed = await client.post("/chat/", json={"prompt": "as a URL", "image": url, "stream": True})
        assert "event: finished" in streamed.text
        await the_same_request_is_the_same_job(client, deployment)
        reference = await uploaded(client, png(seed=b"uploaded"))
        assert (
            await client.post("/chat/", json={"prompt": "uploaded [fails=1]", "image": reference})
        ).status_code == 200
        row = await ended(deployment, await published(deployment, "by event", {"payload_id": reference["payload_id"]}))
        assert row["status"] == "completed", row["error"]
        assert dict(api.seen) == {
            "in base64": LARGE, "as a URL": GIF, "as a form": LARGE, "uploaded [fails=1]": png(seed=b"uploaded"),
            "by event": png(seed=b"uploaded"),
        }  # fmt: skip
        assert len(api.seen) == 6  # one was tried twice
        await nobody_elses_and_no_other(client, deployment, reference)
        assert len(api.seen) == 6
        await only_references_are_told(client, deployment)


async def uploaded(client: httpx.AsyncClient, image: bytes) -> Any:
    reply = await client.post("/payloads", files={"image": ("../../x.png", image)})
    assert reply.status_code == 201, reply.text
    assert reply.json()["expires_at"]
    return reply.json()["image"]


async def the_same_request_is_the_same_job(client: httpx.AsyncClient, deployment: Deployment) -> None:
    replies = [
        await client.post(
            "/chat/async", data={"prompt": "as a form"}, files={"image": ("x", LARGE)}, headers={"idempotency-key": "1"}
        )
        for _ in range(2)
    ]
    assert [reply.status_code for reply in replies] == [202, 202]
    assert replies[0].json() == replies[1].json()
    assert replies[1].headers["idempotency-replayed"] == "true"
    assert (await ended(deployment, uuid.UUID(replies[0].json()["job_id"])))["status"] == "completed"


async def nobody_elses_and_no_other(client: httpx.AsyncClient, deployment: Deployment, reference: Any) -> None:
    mallory = await register(client, "mallory")
    theirs = {"prompt": "theirs", "image": reference}
    told = problem(await client.post("/chat/", json=theirs, headers=mallory), 400, "no-such-payload")
    nothing = {"prompt": "nothing", "image": {"payload_id": str(uuid.uuid4())}}
    same = problem(await client.post("/chat/async", json=nothing, headers=mallory), 400, "no-such-payload")
    assert {**told, "request_id": ""} == {**same, "request_id": ""}
    row = await ended(deployment, await published(deployment, "theirs, by event", reference, "mallory"))
    assert json.loads(row["error"])["code"] == "no-such-payload"
    place = f"/payloads/{reference['payload_id']}"
    problem(await client.delete(place, headers=mallory), 404, "not-found")
    assert (await client.delete(place)).status_code == 204
    problem(await client.delete(place), 404, "not-found")
    row = await ended(deployment, await published(deployment, "it is gone", reference))
    assert json.loads(row["error"])["code"] == "no-such-payload"
    problem(await client.post("/payloads", json={"image": reference}), 422, "invalid-body")
    problem(await client.post("/payloads", files={"image": ("x.png", b"MZ")}), 400, "image-invalid")


async def only_references_are_told(client: httpx.AsyncClient, deployment: Deployment) -> None:
    """Neither topics nor rows nor exports have the images."""
    parts = [base64_of(LARGE)[2_000:2_100], base64_of(GIF), "\\u0000".join("GIF")]
    exported = (await client.get("/jobs/export")).text
    assert len(exported.splitlines()) == 7
    told = exported + json.dumps([dict(row) for row in await deployment.rows()], default=str)
    for topic in deployment.catalog:
        if event_type(topic) in ("job-requested", "prompt-sanitized", "job-admitted", "job-finished", "job-progressed"):
            for record in await deployment.records(topic.name):
                assert len(record.value) < 10_000
                told += record.value.decode()
    for record in await deployment.records("completion-requested-openai"):
        assert len(record.value) < 10_000
        assert b'"payload_id"' in record.value
        told += record.value.decode()
    assert not [part for part in parts if part in told]


async def test_an_image_outlives_a_database_that_is_away_and_workers_that_are_killed(
    deployment: Deployment, api: Viewer
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    nowhere = "postgresql://nobody:nothing@127.0.0.1:1/nothing"
    first = deployment.worker("completion", DATABASE_URL=nowhere, WORKER_ID="completion")
    await deployment.ready()
    async with client_of(ingress) as client:
        body = {"prompt": "what is it? [held]", "image": base64_of(LARGE)}
        job_id = uuid.UUID((await client.post("/chat/async", json=body)).json()["job_id"])
        await until(lambda: first.metric("assistant_retries_total", "postgres-unavailable"))
        assert api.calls == {}
        first.kill()
        second = deployment.worker("completion", WORKER_ID="completion")
        await until(lambda: api.busy == 1, within_s=60)
        second.kill()
        await until(lambda: api.busy == 0)
        api.released.set()
        deployment.worker("completion", WORKER_ID="completion")
        assert (await ended(deployment, job_id))["status"] == "completed"
    assert api.seen == [("what is it? [held]", LARGE)] * 2
    outcomes = [record for record in await deployment.records("job-finished") if record.key == str(job_id).encode()]
    assert len(outcomes) == 1
