"""Comparing through the whole product: cells are ordinary jobs, and no crash asks one twice."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deployment import PASSWORD, Deployment, client_of, register
from tests.pipeline.conftest import Running
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


async def begun(client: httpx.AsyncClient, prompts: list[str], **more: Any) -> str:
    reply = await client.post("/compare", json={"prompts": prompts, "variants": [{"provider": "openai"}]}, **more)
    assert reply.status_code == 202, reply.text
    comparison_id: str = reply.json()["comparison_id"]
    return comparison_id


async def view_of(client: httpx.AsyncClient, comparison_id: str, **more: Any) -> dict[str, Any]:
    reply = await client.get(f"/compare/{comparison_id}", **more)
    assert reply.status_code == 200, reply.text
    view: dict[str, Any] = reply.json()
    return view


async def ended(client: httpx.AsyncClient, comparison_id: str, within_s: float = 60, **more: Any) -> dict[str, Any]:
    async def found() -> Any:
        view = await view_of(client, comparison_id, **more)
        return view if view["status"] in ("completed", "cancelled") else None

    view: dict[str, Any] = await until(found, within_s=within_s)
    return view


@pytest.mark.long
async def test_an_ingress_killed_in_the_middle_goes_on_where_it_was_and_asks_nothing_twice(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    deployment.environment["PUBLISH_TIMEOUT_S"] = "5"
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    prompts = [f"cell {n} [delay=0.1]" for n in range(100)]
    async with client_of(ingress) as client:
        comparison_id = await begun(client, prompts)
        await until(lambda: len(api.calls) >= 20)
    for asked in (50, 80):
        ingress.kill()
        ingress = deployment.start("ingress")
        await deployment.ready(ingress)
        await until(lambda asked=asked: len(api.calls) >= asked, within_s=40)
    async with client_of(ingress) as client:
        view = await ended(client, comparison_id)
    assert view["progress"]["completed"] == 100
    assert api.calls == dict.fromkeys(prompts, 1)
    assert 1 < api.max_busy <= 8
    jobs = await deployment.finished_rows()
    assert len(jobs) == 100
    assert {json.loads(row["metadata"])["comparison"] for row in jobs.values()} == {comparison_id}
    assert {cell["job_id"] for cell in view["cells"]} == {str(job_id) for job_id in jobs}


async def test_cells_wait_for_the_users_rate_and_it_shows(deployment: Deployment, api: OpenAIStandIn) -> None:
    deployment.environment |= {"RATE_LIMIT_WINDOW": "3", "RATE_LIMIT_USER_REQUESTS": "4"}
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        alice = await register(client, "alice")
        comparison_id = await begun(client, [f"cell {n}" for n in range(12)], headers=alice)

        async def waits() -> Any:
            return (await view_of(client, comparison_id, headers=alice)).get("waits_for")

        assert (await until(waits))["code"] == "rate-limited"
        view = await ended(client, comparison_id, headers=alice)
        assert view["progress"]["completed"] == 12
    assert set(api.calls.values()) == {1}
    assert len(api.calls) == 12
    rows = [row for row in (await deployment.finished_rows()).values() if row["status"] == "completed"]
    times = sorted(row["accepted_at"].timestamp() for row in rows)
    assert all(later - earlier > 2.999 for earlier, later in zip(times, times[4:], strict=False))


async def test_a_cancel_closes_the_calls_that_are_at_work(running: Running) -> None:
    async with client_of(running.ingress) as client:
        name = uuid.uuid4().hex
        comparison_id = await begun(client, [f"[mode=hang] {name} {n}" for n in range(30)])
        await until(lambda: running.counts()["busy"] == 8)
        mallory = await register(client, f"mallory-{name[:6]}")
        for method, path in (("GET", ""), ("GET", "/report"), ("POST", "/cancel")):
            reply = await client.request(method, f"/compare/{comparison_id}{path}", headers=mallory)
            assert reply.status_code == 404
        assert (await client.post(f"/compare/{comparison_id}/cancel")).status_code == 202
        await until(lambda: running.counts()["busy"] == 0, within_s=5)
        view = await ended(client, comparison_id)
    assert view["status"] == "cancelled"
    assert view["progress"]["cancelled"] == 30
    assert sum(name in prompt for prompt in running.calls()) == 8


async def types(running: Running, *words: str) -> str:
    done = await asyncio.to_thread(
        running.deployment.run, *words, ASSISTANT_URL=running.ingress.http, ASSISTANT_PASSWORD=PASSWORD,
        ASSISTANT_HOME=str(running.deployment.folder),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_command_line_compares_a_file_and_exports_its_jobs(running: Running, tmp_path: Path) -> None:
    name = uuid.uuid4().hex
    grid = {
        "prompts": [f"{name} {n}" for n in range(3)],
        "variants": [{"generation_config": {"temperature": t}} for t in (0.1, 0.9)],
    }
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    report = tmp_path / "report.html"
    told = await types(running, "compare", str(tmp_path / "grid.json"), "--report", str(report), "--json")
    view = json.loads(told)
    assert view["progress"]["completed"] == 6
    assert report.read_text().count(f"Answer to: {name}") == 6
    assert running.calls()[f"{name} 0"] == 2
    lines = (await types(running, "jobs", "export", "--status", "completed", "--user", "root")).splitlines()
    jobs = [json.loads(line) for line in lines]
    of_it = [job for job in jobs if job.get("metadata", {}).get("comparison") == view["comparison_id"]]
    assert sorted(job["result"]["result"]["text"] for job in of_it) == sorted(
        f"Answer to: {name} {n}" for n in range(3) for _ in range(2)
    )
    assert [job["accepted_at"] for job in jobs] == sorted(job["accepted_at"] for job in jobs)
    assert json.loads(await types(running, "jobs", "--limit", "1", "--json"))
