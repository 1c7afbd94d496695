"""Kafka and Postgres away: at the start, and in between. On services of their own, to be killed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from embedded.services import Running, start_kafka, start_postgres
from tests.conftest import KafkaForTests
from tests.deployment import Deployment, client_of
from tests.pipeline.conftest import environment
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def services(
    tmp_path_factory: pytest.TempPathFactory, service_home: Path
) -> AsyncIterator[tuple[Running, Running]]:
    home = service_home / tmp_path_factory.mktemp("own").name
    home.mkdir()
    kafka = await asyncio.to_thread(start_kafka, home / "kafka")
    postgres = await asyncio.to_thread(start_postgres, home / "postgres")
    yield kafka, postgres
    kafka.kill()
    postgres.kill()


@pytest.fixture
async def own(services: tuple[Running, Running], tmp_path: Path, api: OpenAIStandIn) -> AsyncIterator[Deployment]:
    kafka, postgres = services
    deployment = Deployment(
        KafkaForTests(kafka.bootstrap), postgres.dsn, "o.", tmp_path, environment(api.base_url)
    )  # fmt: skip
    done = await asyncio.to_thread(deployment.run, "setup", "--partitions", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    yield deployment
    deployment.close()


async def test_postgres_away_delays_rows_and_loses_nothing(
    own: Deployment, services: tuple[Running, Running], api: OpenAIStandIn
) -> None:
    _, postgres = services
    ingress, worker = own.start("ingress"), own.worker("gate,completion,sink")
    await own.ready()
    async with client_of(ingress) as client:
        assert (await client.post("/chat/", json={"prompt": "before"})).status_code == 200
        await asyncio.to_thread(postgres.kill)
        for n in range(20):
            reply = await client.post("/chat/", json={"prompt": f"during {n}"})
            assert reply.status_code == 200, reply.text  # waiters are answered by Kafka
        accepted = await client.post("/chat/async", json={"prompt": "during, async"})
        assert accepted.status_code == 202
        reply = await client.get("/jobs")
        assert reply.status_code == 503
        assert reply.json()["code"] == "postgres-unavailable"
        assert (await client.get("/readyz")).json()["warnings"].keys() == {"postgres"}
        await asyncio.to_thread(postgres.start)

        async def all_stored() -> bool:
            return len(await own.finished_rows()) == 22

        await until(all_stored, within_s=30)
    assert set(api.calls.values()) == {1}
    assert worker.popen.poll() is None  # nothing was restarted for it
    assert await own.records("dead-letters") == []


async def test_kafka_away_while_running_is_a_503_or_504_and_nothing_is_lost(
    own: Deployment, services: tuple[Running, Running], api: OpenAIStandIn
) -> None:
    kafka, _ = services
    ingress, worker = own.start("ingress", PUBLISH_TIMEOUT_S="3"), own.worker("gate,completion,sink")
    await own.ready()
    async with client_of(ingress) as client:
        assert (await client.post("/chat/", json={"prompt": "before"})).status_code == 200
        await asyncio.to_thread(kafka.kill)
        first = asyncio.create_task(client.post("/chat/async", json={"prompt": "handed over"}))

        async def refused() -> httpx.Response | None:
            reply = await client.post("/chat/async", json={"prompt": "not taken"})
            return reply if reply.status_code == 503 else None

        reply = await until(refused, within_s=20)
        assert reply.json()["code"] == "not-accepted"
        assert "retry-after" in reply.headers
        unknown = await first
        assert unknown.status_code == 504
        assert unknown.json()["code"] == "outcome-unknown"
        assert unknown.headers["location"] == f"/jobs/{unknown.json()['job_id']}"
        await asyncio.to_thread(kafka.start)

        async def answered() -> bool:
            return (await client.post("/chat/", json={"prompt": "after"})).status_code == 200

        await until(answered, within_s=60)

        async def arrived() -> bool:  # what was handed over came through all the same
            view = await client.get(unknown.headers["location"])
            return view.status_code == 200 and bool(view.json()["status"] == "completed")

        await until(arrived, within_s=30)
    assert api.calls["handed over"] == 1
    assert worker.popen.poll() is None


async def test_jobs_are_cancelled_while_postgres_is_away_and_after_kafka_was(
    own: Deployment, services: tuple[Running, Running], api: OpenAIStandIn
) -> None:
    kafka, postgres = services
    ingress, worker = own.start("ingress"), own.worker("gate,completion,sink")
    await own.ready()
    async with client_of(ingress) as client:

        async def started(prompt: str) -> str:
            reply = await client.post("/chat/async", json={"prompt": prompt})
            assert reply.status_code == 202, reply.text
            await until(lambda: api.calls[prompt] == 1 and api.busy == 1)
            return str(reply.json()["job_id"])

        async def cancel(job_id: object) -> httpx.Response:
            return await client.post(f"/jobs/{job_id}/cancel")

        await asyncio.to_thread(postgres.kill)
        first = await started("[mode=hang] Postgres is away")
        assert (await cancel(first)).json() == {"job_id": first, "status": "cancelled"}
        await until(lambda: api.busy == 0)
        for reply in (await cancel(uuid4()), await client.post("/jobs/cancel", json={})):
            assert (reply.status_code, reply.json()["code"]) == (503, "postgres-unavailable")
        await asyncio.to_thread(postgres.start)

        second = await started("[mode=hang] Kafka was away")
        await asyncio.to_thread(kafka.kill)

        async def refused() -> bool:
            return (await cancel(second)).status_code == 503

        await until(refused, within_s=40)
        await asyncio.to_thread(kafka.start)

        async def cancelled() -> bool:
            return bool((await cancel(second)).json().get("status") == "cancelled")

        await until(cancelled, within_s=60)
        await until(lambda: api.busy == 0)

        async def stored() -> bool:
            return {str(job_id) for job_id in await own.finished_rows()} == {first, second}

        await until(stored)
    assert worker.popen.poll() is None


async def test_kafka_away_at_the_start_is_said_in_one_sentence_and_waited_for(
    own: Deployment, services: tuple[Running, Running]
) -> None:
    kafka, _ = services
    await asyncio.to_thread(kafka.stop)
    ingress, worker = own.start("ingress"), own.worker("gate,completion,sink")

    async def both_say_so() -> bool:
        async with httpx.AsyncClient() as client:
            for process in (ingress, worker):
                try:
                    reply = await client.get(f"{process.http}/readyz")
                except httpx.HTTPError:
                    return False
                if reply.status_code != 503 or "keeps trying" not in reply.text:
                    return False
        return True

    await until(both_say_so, within_s=30)
    async with httpx.AsyncClient(base_url=ingress.http) as client:
        assert (await client.get("/livez")).status_code == 200
    await asyncio.to_thread(kafka.start)
    await own.ready(ingress, worker)
    async with client_of(ingress) as client:
        assert (await client.post("/chat/", json={"prompt": "hello"})).status_code == 200
    assert len(ingress.log.read_text()) < 20_000  # and not in a thousand lines
