"""Dead letters from the outside: listed, redriven once, and what happens when nearly everything becomes one."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from schemas.ids import direct_job_id
from schemas.redrive import MAC_HEADER, RUN_HEADER, RedriveMarks
from tests.conftest import SECRET
from tests.deployment import PASSWORD, Deployment, Process, client_of, register
from tests.pipeline.test_direct import SOURCE, cloud_event
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


async def started(deployment: Deployment, **environment: str) -> tuple[Process, Process]:
    ingress, worker = deployment.start("ingress"), deployment.worker("gate,completion,sink", **environment)
    await deployment.ready()
    return ingress, worker


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """Where webhooks go: its URL, and what came."""
    calls: list[tuple[dict[str, str], bytes]] = []

    async def receive(request: web.Request) -> web.Response:
        calls.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", calls
    await runner.cleanup()


async def letter_of(client: httpx.AsyncClient, job_id: object) -> dict[str, Any]:
    """The job's newest dead letter, once it and the job's end are stored."""

    async def stored() -> Any:
        view = await client.get(f"/jobs/{job_id}")
        items = (await client.get("/admin/dlq", params={"job_id": str(job_id)})).json()["items"]
        return items if items and view.status_code == 200 and view.json()["status"] == "error" else None

    items: list[dict[str, Any]] = await until(stored)
    return items[0]


async def ended(client: httpx.AsyncClient, job_id: object) -> dict[str, Any]:
    async def found() -> Any:
        view = (await client.get(f"/jobs/{job_id}")).json()
        return view if view["status"] != "pending" else None

    view: dict[str, Any] = await until(found)
    return view


async def redriven(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    reply = await client.post("/admin/dlq/redrive", json=body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def runs(deployment: Deployment) -> dict[str, int]:
    return {str(row["job_id"]): row["run"] for row in await deployment.rows()}


async def test_a_mended_job_runs_again_from_where_it_failed_and_only_once(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    ingress, _ = await started(deployment)
    api.mode = "401"
    async with client_of(ingress) as client, receiver() as (url, calls):
        secret = (await client.get("/webhook-secret")).json()["secret"]
        accepted = await client.post("/chat/async", json={"prompt": "mend me", "callback_url": url})
        job_id = accepted.json()["job_id"]
        letter = await letter_of(client, job_id)
        assert (letter["stage"], letter["code"], letter["run"]) == ("generate_completion", "provider-http-401", 1)
        assert letter["topic"] == deployment.prefix + "completion-requested-openai"
        assert letter["user_id"] == "root"

        shown = (await client.get(f"/admin/dlq/{letter['partition']}/{letter['offset']}")).json()
        assert shown["value"]["request"]["prompt"] == "mend me"
        assert {"name": "dlq-code", "value": "provider-http-401"} in shown["headers"]

        await until(lambda: len(calls) == 1)
        api.mode = "answer"
        replies = await asyncio.gather(*(redriven(client, job_id=job_id) for _ in range(5)))
        told = [(done["job_id"], done["run"]) for reply in replies for done in reply["redriven"]]
        assert told == [(job_id, 2)]  # of five at once, one
        view = await ended(client, job_id)
        assert view["status"] == "completed"
        assert view["result"]["result"]["text"] == "Answer to: mend me"
        assert "error" not in view
        assert api.calls["mend me"] == 2
        assert (await runs(deployment))[job_id] == 2

        await until(lambda: len(calls) == 2)
        first, second = (Webhook(secret).verify(body, headers) for headers, body in calls)
        assert (first["type"], second["type"]) == ("job.failed", "job.completed")
        assert calls[0][0]["webhook-id"] != calls[1][0]["webhook-id"]

        again = await redriven(client, job_id=job_id)
        assert again["redriven"] == []
        assert [skipped["job_id"] for skipped in again["skipped"]] == [job_id]
        assert "already" in again["skipped"][0]["reason"]
        assert (await letter_of_any(client, job_id))["redriven_run"] == 2
        stages = [timing["stage"] for timing in view["timings"]]
        assert stages == ["sanitize_prompt", "limit_rate", "route_job", "generate_completion"]  # no gate anew


async def letter_of_any(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    items: list[dict[str, Any]] = (await client.get("/admin/dlq", params={"job_id": job_id})).json()["items"]
    return items[0]


async def test_one_that_fails_again_is_redriven_as_the_run_after(deployment: Deployment, api: OpenAIStandIn) -> None:
    ingress, _ = await started(deployment)
    api.mode = "401"
    async with client_of(ingress) as client:
        job_id = (await client.post("/chat/async", json={"prompt": "stubborn"})).json()["job_id"]
        await letter_of(client, job_id)
        for run in (2, 3):
            assert [done["run"] for done in (await redriven(client, job_id=job_id))["redriven"]] == [run]

            async def failed_again(run: int = run) -> Any:
                return (await letter_of(client, job_id))["run"] == run

            await until(failed_again)
        api.mode = "answer"
        report = await redriven(client, code="provider-http-401", stage="generate_completion")
        assert [done["run"] for done in report["redriven"]] == [4]
        assert len(report["skipped"]) == 2
        assert (await ended(client, job_id))["status"] == "completed"
        assert api.calls["stubborn"] == 4


async def test_an_event_of_a_user_who_was_disabled_runs_once_they_are_not(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    """From the public entry: the value is the client's own, so the run rides in headers that only we can write."""
    ingress, _ = await started(deployment)
    async with client_of(ingress) as client:
        name = "sleeper"
        await register(client, name)
        user: dict[str, Any] = {"user_id": name, "role": "user"}
        await deployment.publish("user-updated", json.dumps({**user, "disabled": True}).encode(), name.encode())
        request = {"user_id": name, "kind": "chat", "request": {"prompt": "wake up"}}
        event_id = str(uuid.uuid4())
        job_id = direct_job_id(SOURCE, name, event_id)

        async def refused() -> Any:
            """Until the gate knows that the user is disabled, an event is simply run."""
            await publish(deployment, request, cloud_event(event_id))
            rows = await deployment.finished_rows()
            return rows.get(job_id)

        row = await until(refused)
        if row["status"] == "completed":  # the gate was behind: another one
            event_id = str(uuid.uuid4())
            job_id = direct_job_id(SOURCE, name, event_id)
            row = await until(refused)
        letter = await letter_of(client, job_id)
        assert (letter["code"], letter["stage"]) == ("user-disabled", "sanitize_prompt")
        await deployment.publish("user-updated", json.dumps(user).encode(), name.encode())

        async def woken() -> Any:
            await redriven(client, job_id=str(job_id))
            view = await ended(client, job_id)
            return view if view["status"] == "completed" else await letter_of(client, job_id) and None

        view = await until(woken)
        assert view["result"]["result"]["text"] == "Answer to: wake up"
        assert (await runs(deployment))[str(job_id)] >= 2
        assert view["timings"][0]["stage"] == "sanitize_prompt"


async def publish(deployment: Deployment, value: Any, headers: dict[str, str]) -> None:
    raw = [(name, text.encode()) for name, text in headers.items()]
    await deployment.publish("job-requested", json.dumps(value).encode(), b"k", raw)


async def test_nobody_else_can_raise_a_run(deployment: Deployment) -> None:
    await started(deployment)
    forged = {RUN_HEADER: "7", MAC_HEADER: "0" * 64}
    of_another_job = RedriveMarks([SECRET]).headers(uuid.uuid4(), 7)
    others = {name: (value or b"").decode() for name, value in of_another_job}
    ids = [str(uuid.uuid4()) for _ in range(3)]
    for event_id, mark in zip(ids, (forged, others, {RUN_HEADER: "7"}), strict=True):
        request = {"user_id": "root", "kind": "chat", "request": {"prompt": "raise me"}}
        await publish(deployment, request, cloud_event(event_id, **mark))
    jobs = {direct_job_id(SOURCE, "root", event_id) for event_id in ids}

    async def all_ended() -> Any:
        rows = await deployment.finished_rows()
        return [rows[job_id]["run"] for job_id in jobs] if jobs <= rows.keys() else None

    assert await until(all_ended) == [1, 1, 1]


async def test_records_without_a_job_are_listed_and_skipped(deployment: Deployment) -> None:
    ingress, _ = await started(deployment)
    await deployment.publish("job-requested", b"\xff\x00 no event", b"\x00\xff", [("odd\x00name", b"\xfe\x00")])
    async with client_of(ingress) as client:

        async def listed() -> Any:
            return (await client.get("/admin/dlq", params={"code": "invalid-event"})).json()["items"]

        (letter,) = await until(listed)
        assert "job_id" not in letter
        shown = (await client.get(f"/admin/dlq/{letter['partition']}/{letter['offset']}")).json()
        assert shown["value_base64"] == "/wAgbm8gZXZlbnQ="
        report = await redriven(client)
        assert report["redriven"] == []
        assert "no event of a job" in report["skipped"][0]["reason"]
        for params in ({"from": letter["at"]}, {"to": "2100-01-01T00:00:00Z"}):
            assert len((await client.get("/admin/dlq", params=params)).json()["items"]) == 1
        assert (await client.get("/admin/dlq", params={"to": letter["at"]})).json()["items"] == []
        assert (await client.get("/admin/dlq/0/999")).status_code == 404
        assert (await client.get("/admin/dlq", params={"cursor": "x"})).status_code == 400
        assert (await client.post("/admin/dlq/redrive", json={"cursor": "x"})).status_code == 400
        assert (await client.post("/admin/dlq/redrive", json={"colour": "red"})).status_code == 422
        headers = await register(client, "mallory")
        for method, path in (("GET", ""), ("GET", "/0/0"), ("POST", "/redrive")):
            reply = await client.request(method, f"/admin/dlq{path}", headers=headers, json={})
            assert reply.status_code == 403


async def test_the_command_line_lists_shows_and_redrives(deployment: Deployment, api: OpenAIStandIn) -> None:
    ingress, _ = await started(deployment)
    where = {"ASSISTANT_URL": ingress.http, "ASSISTANT_PASSWORD": PASSWORD, "ASSISTANT_HOME": str(deployment.folder)}

    async def run(*words: str) -> Any:
        return await asyncio.to_thread(deployment.run, "dlq", *words, **where)

    async with client_of(ingress) as client:
        assert "no such dead letter" in (await run("list")).stderr
        api.mode = "401"
        job_id = (await client.post("/chat/async", json={"prompt": "by hand"})).json()["job_id"]
        await letter_of(client, job_id)
        listed = await run("list", "--code", "provider-http-401", "--json")
        assert [item["job_id"] for item in json.loads(listed.stdout)] == [job_id]
        assert job_id in (await run("list", "--job", job_id, "--limit", "5")).stdout
        assert json.loads((await run("show", job_id)).stdout)[0]["value"]["request"]["prompt"] == "by hand"
        api.mode = "answer"
        done = await run("redrive", "--job", job_id)
        assert done.returncode == 0, done.stderr
        assert f"the job {job_id} runs again, as run 2" in " ".join(done.stdout.split())
        assert (await ended(client, job_id))["status"] == "completed"
        done = await run("redrive", "--stage", "generate_completion", "--yes")
        assert done.returncode == 0
        assert "redriven already, as run 2" in done.stdout


async def test_a_stage_whose_events_all_fail_stops_says_so_and_goes_on_when_it_is_mended(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    ingress, worker = await started(deployment, STAGE_COOL_DOWN_S="2", STALL_TIMEOUT="6")
    api.mode = "401"
    async with client_of(ingress) as client:

        async def ask(prompt: str) -> str:
            reply = await client.post("/chat/async", json={"prompt": prompt})
            assert reply.status_code == 202, reply.text
            job_id: str = reply.json()["job_id"]
            return job_id

        await asyncio.gather(*(ask(f"fails {n}") for n in range(25)))

        async def says_so() -> Any:
            reply = await client.get(f"{worker.http}/readyz")
            return reply.json()["problems"] if reply.status_code == 503 else None

        problems = await until(says_so)
        assert problems.keys() == {"generate_completion-openai"}
        assert "provider-http-401" in problems["generate_completion-openai"]
        assert "assistant_stage_stopped{stage=\"generate_completion-openai\"} 1.0" in (
            await client.get(f"{worker.http}/metrics")
        ).text  # fmt: skip

        def calls() -> int:
            return sum(api.calls[f"waits {n}"] for n in range(10))

        later = [await ask(f"waits {n}") for n in range(10)]

        async def all_wait() -> bool:  # the rest of the pipeline goes on
            rows = {str(row["job_id"]) for row in await deployment.rows()}
            return set(later) <= rows

        await until(all_wait)
        assert calls() <= 2  # tried, one at a time

        await until(lambda: calls() >= 5)  # past the watchdog's time: what stopped on purpose is not ended for it
        assert worker.popen.poll() is None
        assert (await client.get(f"{worker.http}/readyz")).status_code == 503
        api.mode, failed = "answer", calls()
        views = [await ended(client, job_id) for job_id in later]
        assert sum(view["status"] == "completed" for view in views) == 10 - failed  # all but those that were tried
        await until(worker.is_ready)
    log = worker.log.read_text()
    assert log.count("has stopped taking") == 1
    assert log.count("takes again") == 1
