"""Deleting a job, from the outside: it is as if it had never been."""

import uuid
from typing import Any

import httpx
import pytest

from tests.deployment import client_of, register
from tests.pipeline.conftest import Running
from tests.pipeline.test_rest import problem
from tests.waiting import until

pytestmark = pytest.mark.integration


async def ended(client: httpx.AsyncClient, job_id: str) -> None:
    async def has_ended() -> bool:
        return bool((await client.get(f"/jobs/{job_id}")).json()["status"] != "pending")

    await until(has_ended)


async def test_a_deleted_job_is_a_404_everywhere_and_its_key_is_free(running: Running) -> None:
    body, key = {"prompt": f"delete me {uuid.uuid4()}"}, {"idempotency-key": str(uuid.uuid4())}
    async with client_of(running.ingress) as admin, httpx.AsyncClient(base_url=running.ingress.http) as client:
        client.headers.update(await register(admin, f"alice-{uuid.uuid4().hex[:6]}"))
        asked = [await client.post("/chat/async", json=body, headers=key) for _ in range(2)]
        job_ids = {reply.json()["job_id"] for reply in asked}
        (job_id,) = job_ids
        await ended(client, job_id)
        reply = await client.delete(f"/jobs/{job_id}")
        assert (reply.status_code, reply.content) == (204, b"")
        calls: list[tuple[str, str]] = [
            ("DELETE", ""), ("GET", ""), ("GET", "/stream"), ("GET", "/audio"), ("GET", "/webhooks"),
            ("POST", "/webhooks/redeliver"), ("POST", "/cancel"),
        ]  # fmt: skip
        for method, path in calls:  # its id is so young that without its row it would be one that waits
            problem(await client.request(method, f"/jobs/{job_id}{path}"), 404, "not-found")
        for path in (f"/inference/{job_id}", f"/agents/{job_id}"):
            problem(await client.get(path), 404, "not-found")
        assert (await client.get("/jobs")).json()["items"] == []
        assert (await client.get("/jobs/export")).content == b""
        anew = await client.post("/chat/async", json=body, headers=key)
        assert anew.json()["job_id"] != job_id
        await ended(client, anew.json()["job_id"])
        assert (await admin.delete(f"/jobs/{anew.json()['job_id']}")).status_code == 204  # an admin may
        assert (await client.get("/jobs")).json()["items"] == []


async def test_a_job_that_has_not_ended_is_to_be_cancelled_first(running: Running) -> None:
    async with client_of(running.ingress) as client:
        reply = await client.post("/chat/async", json={"prompt": f"[mode=hang] {uuid.uuid4()}"})
        path = reply.headers["location"]
        told: dict[str, Any] = problem(await client.delete(path), 409, "not-finished")
        assert f"{path}/cancel" in told["detail"]
        assert (await client.get(path)).json()["status"] == "pending"
        await client.post(f"{path}/cancel")
        await ended(client, path.rpartition("/")[2])
        assert (await client.delete(path)).status_code == 204
        problem(await client.post(f"{path}/cancel"), 404, "not-found")
