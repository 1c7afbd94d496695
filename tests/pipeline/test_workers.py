"""Who works, as admins see it; and webhooks sent again, as users do."""

import json
import uuid
from typing import Any

import pytest
from aiohttp import web

from tests.deployment import PASSWORD, Deployment, client_of, register
from tests.pipeline.conftest import Running
from tests.pipeline.test_rest import problem
from tests.waiting import until

pytestmark = pytest.mark.integration


async def test_workers_are_listed_for_admins_only(running: Running) -> None:
    async with client_of(running.ingress) as admin:

        async def assigned() -> Any:
            items = (await admin.get("/workers")).json()["items"]
            return items[0] if items and items[0]["partitions"] else None

        item = await until(assigned)
        assert item["alive"] is True
        assert 0 <= item["age_s"] < 15
        assert item["roles"] == ["gate", "completion", "retrieval", "agent", "ingestion", "sink"]
        assert item["partitions"][running.deployment.prefix + "job-requested"] == [0, 1, 2, 3]
        stages = {load["stage"] for load in item["stages"]}
        assert {"sanitize_prompt", "limit_rate", "route_job", "generate_completion-openai", "store_outcome"} <= stages
        assert all(load.keys() == {"stage", "in_flight", "lag", "finished_last_minute"} for load in item["stages"])
        (offer,) = item["providers"]
        assert (offer["name"], offer["models"][0]) == ("openai", "gpt-4o-mini")
        assert item["http"] == running.worker.http
        someone = await register(admin, f"someone-{uuid.uuid4().hex[:6]}")
        problem(await admin.get("/workers", headers=someone), 403, "not-allowed")


async def test_the_command_lists_them_for_people_and_for_programs(running: Running) -> None:
    where = {"ASSISTANT_URL": running.ingress.http, "ASSISTANT_PASSWORD": PASSWORD,
             "ASSISTANT_HOME": str(running.deployment.folder), "COLUMNS": "200"}  # fmt: skip

    def listed() -> Any:
        told = running.deployment.run("workers", "--json", **where)
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)

    (item,) = await until(listed)
    told = running.deployment.run("workers", **where)
    assert item["worker"] in told.stdout
    assert running.worker.http in told.stdout


async def test_a_webhook_is_sent_again_on_demand(running: Running) -> None:
    calls: list[tuple[str, bytes]] = []

    async def receive(request: web.Request) -> web.Response:
        calls.append((request.headers["webhook-id"], await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    async with client_of(running.ingress) as admin:
        alice, bob = [await register(admin, f"{name}-{uuid.uuid4().hex[:6]}") for name in ("alice", "bob")]
        reply = await admin.post("/chat/async", json={"prompt": "x", "callback_url": url}, headers=alice)
        job_id = reply.json()["job_id"]

        async def attempts(count: int) -> Any:
            items = (await admin.get(f"/jobs/{job_id}/webhooks", headers=alice)).json()["items"]
            return items if len(items) == count else None

        await until(lambda: attempts(1))
        reply = await admin.post(f"/jobs/{job_id}/webhooks/redeliver", headers=alice)
        assert (reply.status_code, reply.json()) == (202, {"job_id": job_id})
        (_, second) = await until(lambda: attempts(2))
        assert second.keys() == {"attempt", "at", "status_code"}
        assert (second["attempt"], second["status_code"]) == (2, 200)
        problem(await admin.post(f"/jobs/{job_id}/webhooks/redeliver", headers=bob), 404, "not-found")
        problem(await admin.post(f"/jobs/{uuid.uuid4()}/webhooks/redeliver", headers=alice), 404, "not-found")
        plain = (await admin.post("/chat/async", json={"prompt": "x"}, headers=alice)).json()["job_id"]
        problem(await admin.post(f"/jobs/{plain}/webhooks/redeliver", headers=alice), 409, "no-webhook")

        span = {"from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}
        reply = await admin.post("/webhooks/redeliver", json=span, headers=bob)
        assert (reply.status_code, reply.json()) == (202, {"items": [], "next": None})
        own = {**span, "state": "delivered", "limit": 1}
        page = (await admin.post("/webhooks/redeliver", json=own, headers=alice)).json()
        assert [item["job_id"] for item in page["items"]] == [job_id]
        rest = await admin.post("/webhooks/redeliver", json={**own, "cursor": page["next"]}, headers=alice)
        assert rest.json() == {"items": [], "next": None}
        await until(lambda: attempts(3))
        whose = (await admin.get("/jobs/" + job_id)).status_code
        assert whose == 200
        user_id = next(row["user_id"] for row in await running.deployment.rows() if str(row["job_id"]) == job_id)
        for_her = {**span, "user_id": user_id}
        assert len((await admin.post("/webhooks/redeliver", json=for_her)).json()["items"]) == 1
        problem(await admin.post("/webhooks/redeliver", json=for_her, headers=bob), 403, "not-allowed")
        problem(await admin.post("/webhooks/redeliver", json={**span, "cursor": "x"}), 400, "invalid-cursor")
        for wrong in ({"from": span["from"]}, {**span, "limit": 1001}, {**span, "from": "2020-01-01T00:00:00"}):
            problem(await admin.post("/webhooks/redeliver", json=wrong), 422, "invalid-body")
        await until(lambda: attempts(4))
    assert len(set(calls)) == 1
    await runner.cleanup()


@pytest.mark.long
async def test_the_older_of_two_workers_with_one_name_ends_and_says_why(deployment: Deployment) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    older = deployment.worker("completion", WORKER_ID="twin")
    await deployment.ready()
    newer = deployment.worker("completion", WORKER_ID="twin")
    assert await until(lambda: older.popen.poll(), within_s=60) == 1
    assert "give each its own WORKER_ID" in older.log.read_text()
    await deployment.ready(newer)
    async with client_of(ingress) as client:
        reply = await client.post("/chat/", json={"prompt": "hi"})
        assert reply.status_code == 200, reply.text
        (told,) = [item for item in (await client.get("/workers")).json()["items"] if item["worker"] == "twin"]
    assert told["alive"]
    assert newer.popen.poll() is None
