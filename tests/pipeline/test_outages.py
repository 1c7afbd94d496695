"""Kafka and Postgres away: at the start, and in between. On services of their own, to be killed."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest

from embedded.running import Running
from embedded.services import start_kafka, start_postgres
from schemas.events import JobRequested
from schemas.requests import ChatRequest
from streams.watchdog import EXIT_CODE
from tests.conftest import SECRET, KafkaForTests, PostgresForTests, new_database, new_prefix
from tests.deployment import PASSWORD, Deployment, client_of
from tests.forks import Forks
from tests.pipeline.conftest import environment
from tests.pipeline.test_kill import accept, all_completed
from tests.pipeline.test_retries import asked, completed, due_rows, executed, outcomes
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.stand_ins.webhook_receiver import WebhookReceiver
from tests.waiting import until
from transport.tokens import Tokens

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def breakable(service_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Running]]:
    home = service_home / tmp_path_factory.mktemp("own").name
    home.mkdir()
    with ThreadPoolExecutor(2) as threads:
        starting = threads.submit(start_kafka, home / "kafka"), threads.submit(start_postgres, home / "postgres")
        kafka, postgres = (each.result() for each in starting)
        for service in (kafka, postgres):
            # The kernel ends a child with the thread that started it, and a test's threads end with the test.
            service.start = partial(_done_in, threads, service.start)  # type: ignore[method-assign]
        yield kafka, postgres
        kafka.kill()
        postgres.kill()


def _done_in(threads: ThreadPoolExecutor, action: Callable[[], None]) -> None:
    threads.submit(action).result()


@pytest.fixture
async def services(breakable: tuple[Running, Running]) -> tuple[Running, Running]:
    """Both run, whatever a test before has done to them."""
    await asyncio.gather(*(asyncio.to_thread(service.start) for service in breakable if service._process is None))
    return breakable


@pytest.fixture
async def own(
    services: tuple[Running, Running], tmp_path: Path, api: OpenAIStandIn, forks: Forks
) -> AsyncIterator[Deployment]:
    """With topics and a database of its own."""
    kafka, postgres = services
    dsn = await new_database(PostgresForTests(postgres.dsn))
    deployment = Deployment(
        KafkaForTests(kafka.bootstrap), dsn, new_prefix(), tmp_path, environment(api.base_url), forks=forks
    )  # fmt: skip
    await deployment.set_up(partitions=2)
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


async def test_what_is_told_to_stop_while_kafka_is_away_ends(
    own: Deployment, services: tuple[Running, Running]
) -> None:
    kafka, _ = services
    ingress, worker = own.start("ingress"), own.worker("gate,completion,sink", DRAIN_TIMEOUT="1")
    await own.ready()
    async with client_of(ingress) as client:
        assert (await client.post("/chat/", json={"prompt": "before"})).status_code == 200
    await asyncio.to_thread(kafka.kill)
    codes = await asyncio.gather(ingress.stop(within_s=45), worker.stop(within_s=45))
    assert codes[0] == -signal.SIGTERM  # as uvicorn ends once all is closed
    assert codes[1] in (0, EXIT_CODE)  # a commit of its own waits for Kafka
    assert "shutdown failed" not in ingress.log.read_text()


async def test_postgres_away_holds_what_cannot_be_put_off_and_then_goes_on(
    own: Deployment, services: tuple[Running, Running], api: OpenAIStandIn
) -> None:
    _, postgres = services
    # Longer than Postgres takes to recover on a busy machine: what is seen before that is not for its time.
    ingress, worker = own.start("ingress"), own.worker("gate,completion,sink", RETRY_LONG_FIRST_S="300")
    await own.ready()
    async with client_of(ingress) as client:
        await completed(client, await asked(client, "before"))
        await asyncio.to_thread(postgres.kill)
        path = await asked(client, "[fails=2] row")
        await until(lambda: api.calls["[fails=2] row"] == 2 and not api.busy)
        await asyncio.to_thread(postgres.start)
        await until(lambda: due_rows(own), within_s=60)  # as soon as Postgres is back, and not when it is due
        await executed(own, "UPDATE due_events SET due_at = now()")
        await completed(client, path)
        assert api.calls["[fails=2] row"] == 3
        assert await worker.stop() == 0

        worker = own.worker("gate,completion,sink", RETRY_LONG_FIRST_S="2")
        await own.ready(worker)
        await asyncio.to_thread(postgres.kill)
        path = await asked(client, "[fails=2] in place")
        await until(lambda: api.calls["[fails=2] in place"] == 3)  # at its time, without any row
        await asyncio.to_thread(postgres.start)
        await completed(client, path)
        assert api.calls["[fails=2] in place"] == 3
    assert await own.records("dead-letters") == []
    assert set((await outcomes(own)).values()) == {1}
    assert worker.popen.poll() is None


async def test_kafka_away_while_running_is_a_503_or_504_and_nothing_is_lost(
    own: Deployment, services: tuple[Running, Running], api: OpenAIStandIn
) -> None:
    kafka, _ = services
    ingress, worker = own.start("ingress", PUBLISH_TIMEOUT_S="3"), own.worker("gate,completion,sink")
    await own.ready()
    async with client_of(ingress) as client:
        assert (await client.post("/chat/", json={"prompt": "before"})).status_code == 200
        await asyncio.to_thread(kafka.kill)
        told: dict[str, httpx.Response] = {}  # by prompt, one each: what it was told is what must be

        async def ask(prompt: str) -> int:
            told[prompt] = await client.post("/chat/async", json={"prompt": prompt})
            return told[prompt].status_code

        first = asyncio.create_task(ask("handed over"))

        async def refused() -> bool:
            return await ask(f"once more {len(told)}") == 503

        for _ in range(5):
            await until(refused, within_s=20)
        await first
        not_taken = {prompt for prompt, reply in told.items() if reply.status_code == 503}
        for prompt, reply in told.items():
            assert reply.status_code in (503, 504), prompt
            if reply.status_code == 503:
                assert reply.json()["code"] == "not-accepted"
                assert "retry-after" in reply.headers
                continue
            assert reply.json()["code"] == "outcome-unknown"
            assert reply.headers["location"] == f"/jobs/{reply.json()['job_id']}"
        assert told["handed over"].status_code == 504
        assert len(not_taken) >= 5
        await asyncio.to_thread(kafka.start)

        async def answered() -> bool:
            return (await client.post("/chat/", json={"prompt": "after"})).status_code == 200

        await until(answered, within_s=60)

        unknown = {prompt: reply for prompt, reply in told.items() if reply.status_code == 504}
        views: list[httpx.Response] = []

        async def arrived() -> bool:  # what was handed over came through all the same
            views[:] = [await client.get(reply.headers["location"]) for reply in unknown.values()]
            return all(view.status_code == 200 and view.json()["status"] == "completed" for view in views)

        await until(arrived, within_s=30, telling=lambda: [view.text for view in views])
    assert {prompt: api.calls[prompt] for prompt in unknown} == dict.fromkeys(unknown, 1)
    # Of what was said not to be accepted nothing came.
    requested = [JobRequested.model_validate_json(record.value) for record in await own.records("job-requested")]
    assert not not_taken & {event.request.prompt for event in requested if isinstance(event.request, ChatRequest)}
    assert not not_taken & api.calls.keys()
    assert worker.popen.poll() is None


@pytest.mark.long
async def test_jobs_are_cancelled_while_postgres_is_away_and_after_kafka_was(
    own: Deployment, services: tuple[Running, Running], api: OpenAIStandIn
) -> None:
    kafka, postgres = services
    ingress, worker = own.start("ingress", PUBLISH_TIMEOUT_S="3"), own.worker("gate,completion,sink")
    await own.ready()
    async with client_of(ingress) as client:

        async def started(prompt: str) -> str:
            # Longer than Kafka is away: it ends by being cancelled, and not by its time.
            reply = await client.post("/chat/async", json={"prompt": prompt, "timeout": 120})
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
    token = Tokens([SECRET], lifetime_s=60).issue("root", role="admin", epoch=0)  # of before, or of another replica
    credentials = {"user_id": "root", "password": PASSWORD}
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=ingress.http, timeout=5) as client:
        assert (await client.get("/livez")).status_code == 200
        for reply in (
            await client.post("/chat/", json={"prompt": "hello"}, headers=headers),
            await client.post("/chat/async", json={"prompt": "hello"}, headers=headers),
            await client.get("/jobs", headers=headers),
            await client.post("/auth/login", json=credentials),
        ):
            assert reply.status_code == 503, reply.text
            assert reply.json()["code"] in ("not-ready", "not-accepted")
            assert int(reply.headers["retry-after"]) >= 1
        reply = await client.get("/jobs", headers={"authorization": "Bearer a.b.c"})
        assert reply.status_code == 401
    waiting = [line for line in worker.log.read_text().splitlines() if "keeps trying" in line]
    assert len(waiting) == 1
    assert own.kafka.bootstrap in waiting[0]
    await asyncio.to_thread(kafka.start)
    await own.ready(ingress, worker)
    async with client_of(ingress) as client:
        assert (await client.post("/chat/", json={"prompt": "hello"})).status_code == 200
        assert (await client.get("/jobs", headers=headers)).status_code == 200
    assert len(ingress.log.read_text()) < 20_000  # and not in a thousand lines


async def test_a_worker_that_waits_for_kafka_stops_when_it_is_told_to(
    own: Deployment, services: tuple[Running, Running]
) -> None:
    kafka, _ = services
    await asyncio.to_thread(kafka.stop)
    late = own.worker("gate")
    await until(lambda: "keeps trying" in late.log.read_text())
    assert await late.stop(within_s=10) == 0


async def test_kafka_killed_with_hundreds_of_jobs_in_flight(
    own: Deployment, services: tuple[Running, Running], api: OpenAIStandIn
) -> None:
    kafka, _ = services
    ingress, worker = own.start("ingress"), own.worker("gate,completion,sink")
    await own.ready()
    async with client_of(ingress) as client:
        prompts = [f"question {n} [held]" for n in range(300)]
        job_ids = await accept(client, prompts)
        await until(lambda: api.busy == 300)
        await asyncio.to_thread(kafka.kill)
        api.released.set()
        await until(lambda: api.busy == 0)  # all of them are answered while nobody can be told
        await asyncio.to_thread(kafka.start)
        await all_completed(own, job_ids)
    assert set(api.calls) == set(prompts)
    assert max(api.calls.values()) == 1  # the worker has lived on: nothing is paid for twice
    assert worker.popen.poll() is None
    outcomes = Counter(record.key for record in await own.records("job-finished"))
    assert outcomes.keys() == {job_id.encode() for job_id in job_ids}


@pytest.mark.long
async def test_a_webhook_that_is_due_outlives_a_postgres_that_goes_away(
    own: Deployment, services: tuple[Running, Running]
) -> None:
    _, postgres = services
    ingress, _ = own.start("ingress"), own.worker("gate,completion,sink")
    await own.ready()
    async with WebhookReceiver(failures=1) as receiver, client_of(ingress) as client:
        body = {"prompt": "tell me", "callback_url": receiver.url}
        job_id = (await client.post("/chat/async", json=body)).json()["job_id"]

        async def first_attempt_recorded() -> bool:
            reply = await client.get(f"/jobs/{job_id}/webhooks")
            return reply.status_code == 200 and len(reply.json()["items"]) == 1

        await until(first_attempt_recorded)
        await asyncio.to_thread(postgres.kill)
        late = await client.post("/chat/async", json={**body, "prompt": "while it is away"})
        assert late.status_code == 202
        await asyncio.to_thread(postgres.start)
        await until(lambda: sum(map(len, receiver.received.values())) == 3, within_s=30)
    counts = sorted(len(bodies) for bodies in receiver.received.values())
    assert counts == [1, 2]  # the one that failed a second time, under its id; the other once
    assert {len(set(bodies)) for bodies in receiver.received.values()} == {1}


@pytest.mark.long
async def test_a_sink_that_starts_without_postgres_begins_once_it_is_there(
    own: Deployment, services: tuple[Running, Running], api: OpenAIStandIn
) -> None:
    _, postgres = services
    ingress = own.start("ingress")
    await own.ready(ingress)
    async with client_of(ingress) as client:
        await asyncio.to_thread(postgres.kill)
        worker = own.worker("gate,completion,sink")
        await own.ready(worker)
        job_ids = await accept(client, [f"question {n}" for n in range(20)])
        await until(lambda: len(api.calls) == 20)
        await asyncio.to_thread(postgres.start)
        await all_completed(own, job_ids)
    assert worker.popen.poll() is None
    assert set(api.calls.values()) == {1}


@pytest.mark.long
async def test_a_postgres_that_hangs_is_waited_for_and_holds_up_nobody(
    own: Deployment, services: tuple[Running, Running], api: OpenAIStandIn
) -> None:
    """Its sockets stay open, and nothing comes of them."""
    _, postgres = services
    ingress, worker = own.start("ingress"), own.worker("gate,completion,sink")
    await own.ready()
    async with client_of(ingress) as client:
        assert (await client.post("/chat/", json={"prompt": "before"})).status_code == 200
        with frozen(postgres):
            for n in range(5):
                assert (await client.post("/chat/", json={"prompt": f"during {n}"})).status_code == 200
            for reply in await asyncio.gather(*(client.get("/readyz", timeout=4) for _ in range(20))):
                assert reply.status_code == 200  # within a second, and not the ten that Postgres is given
                assert reply.json()["warnings"].keys() == {"postgres"}
            reply = await client.get("/jobs")
            assert (reply.status_code, reply.json()["code"]) == (503, "postgres-unavailable")

        async def all_stored() -> bool:
            return len(await own.finished_rows()) == 6

        await until(all_stored, within_s=60)
    assert set(api.calls.values()) == {1}
    assert worker.popen.poll() is None


@contextmanager
def frozen(part: Running) -> Iterator[None]:
    """Stopped with all its children, and let go at the end."""
    assert part._process is not None
    tree = [psutil.Process(part._process.pid), *psutil.Process(part._process.pid).children(recursive=True)]
    for process in tree:
        process.suspend()
    try:
        yield
    finally:
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.resume()
