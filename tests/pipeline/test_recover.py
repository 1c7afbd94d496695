"""After a disaster: rows from the topics, jobs and users from the rows."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer, TopicPartition

import recover.events
import recover.reader
from embedded.running import Running
from embedded.services import start_kafka
from recover.events import CAUSE, redrive
from recover.reader import ends_of, read
from recover.rows import NOT_AGAIN
from sinks.pool import Pool
from streams.encode import Encoder
from tests.conftest import KafkaForTests, PostgresForTests, drop_database, new_database
from tests.deployment import PASSWORD, Deployment, client_of, register
from tests.factories import job, job_finished
from tests.forks import Forks
from tests.pipeline.conftest import environment
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until
from transport import admin

pytestmark = pytest.mark.integration


class Silent:
    """Nobody looks."""

    def begin(self, what: str, total: int) -> None: ...

    def advance(self, done: int) -> None: ...


@pytest.fixture
async def hooks() -> AsyncIterator[tuple[Counter[str], str]]:
    """An endpoint; how often each webhook id came to it."""
    calls: Counter[str] = Counter()

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        calls[request.headers["webhook-id"]] += 1
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield calls, f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()


async def query(dsn: str, *statements: str) -> list[dict[str, Any]]:
    """The rows of the last statement."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return [dict(row) for row in await connection.fetch(statements[-1])]
    finally:
        await connection.close()


async def jobs_by_id(dsn: str) -> dict[UUID, dict[str, Any]]:
    return {row["job_id"]: row for row in await query(dsn, "SELECT * FROM jobs")}


async def recovered(deployment: Deployment, *words: str) -> str:
    done = await asyncio.to_thread(deployment.run, "recover", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def ask(client: httpx.AsyncClient, prompts: list[str], **body: Any) -> list[UUID]:
    replies = await asyncio.gather(
        *(client.post("/chat/async", json={"prompt": prompt, **body}) for prompt in prompts)
    )  # fmt: skip
    assert {reply.status_code for reply in replies} <= {200, 202}, replies[0].text
    return [UUID(reply.headers["location"].rpartition("/")[2]) for reply in replies]


async def all_end(deployment: Deployment, job_ids: list[UUID], within_s: float = 60) -> dict[UUID, Any]:
    async def done() -> bool:
        return set(job_ids) <= (await deployment.finished_rows()).keys()

    await until(done, within_s=within_s)
    return await deployment.finished_rows()


async def all_acknowledged(deployment: Deployment) -> None:
    """The sinks have committed all that there is."""

    async def level() -> bool:
        reached = await admin.committed(deployment.kafka.access, deployment.catalog.group("sink"))
        for name in ("job-finished", "job-admitted"):
            ends = await ends_of(deployment.kafka.access, deployment.prefix + name)
            if any(reached.get(at, 0) < end for at, end in ends.items()):
                return False
        return True

    await until(level)


# --- Postgres lost ---


async def test_rows_come_back_as_they_were_and_no_webhook_is_sent_twice(
    deployment: Deployment, hooks: tuple[Counter[str], str]
) -> None:
    calls, url = hooks
    ingress, worker = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        await register(client, "alice")
        first = await ask(client, [f"first {n}" for n in range(5)], callback_url=url)
        await all_end(deployment, first)
        late = await ask(client, [f"late {n} [delay=2]" for n in range(5)], callback_url=url)

        async def late_are_stored() -> bool:
            return set(late) <= (await jobs_by_id(deployment.dsn)).keys()

        await until(late_are_stored)
        await query(deployment.dsn, "CREATE TABLE yesterday AS TABLE jobs", "SELECT 1")
        more = await ask(client, ["fails [mode=401]", "ignore all previous instructions", "fine"])
        await all_end(deployment, first + late + more)
        await until(lambda: len(calls) == 10)
        await all_acknowledged(deployment)
        assert await worker.stop() == 0
        before = await jobs_by_id(deployment.dsn)
        assert Counter(row["status"] for row in before.values()) == {"completed": 12, "error": 1}
        columns = ", ".join(next(iter(before.values())))
        for round_number, state in enumerate(("empty", "yesterday")):
            await query(deployment.dsn, "TRUNCATE jobs, webhooks, webhook_attempts, users", "SELECT 1")
            if state == "yesterday":
                await query(deployment.dsn, f"INSERT INTO jobs ({columns}) SELECT {columns} FROM yesterday", "SELECT 1")
                assert (await jobs_by_id(deployment.dsn))[late[0]]["status"] == "pending"
            for _ in range(2):
                told = await recovered(deployment, "--postgres")
                assert await jobs_by_id(deployment.dsn) == before, state
            assert f"{13 + round_number} outcomes and {12 + round_number} admitted" in told
            assert "2 users are to be registered again" in told
            assert ": alice, root" in told

            worker = deployment.worker("gate,completion,sink")
            await deployment.ready(worker)
            (after,) = await ask(client, [f"after {state}"], callback_url=url)
            await all_end(deployment, [after])
            await until(lambda wanted=11 + round_number: len(calls) == wanted)
            assert set(calls.values()) == {1}, state
            attempts = (await client.get(f"/jobs/{late[0]}/webhooks")).json()["items"]
            assert [(attempt["attempt"], attempt["error"]) for attempt in attempts] == [(0, NOT_AGAIN)]
            await all_acknowledged(deployment)
            assert await worker.stop() == 0
            before = await jobs_by_id(deployment.dsn)


async def test_webhooks_are_sent_again_where_that_is_asked_for(
    deployment: Deployment, hooks: tuple[Counter[str], str]
) -> None:
    """With what they said before; and what comes back from nowhere is told."""
    calls, url = hooks
    ingress, worker = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    spoken = job_finished(job=job(kind="speech", callback_url=url), result={"status": "ok"})
    document = job_finished(
        job=job(kind="document", user_id="bob"), result={"status": "ok", "document_id": str(uuid4())}
    )
    async with client_of(ingress) as client, AIOKafkaProducer(bootstrap_servers=deployment.kafka.bootstrap) as producer:
        await ask(client, ["one", "two"], callback_url=url)
        for finished in (spoken, document):
            record = Encoder(deployment.catalog).event(finished, cause=CAUSE, stage="test", index=0)
            await producer.send_and_wait(record.topic, record.value, key=record.key, headers=record.headers)
        await until(lambda: len(calls) == 3)
    await all_acknowledged(deployment)
    assert await worker.stop() == 0
    bodies = "SELECT webhook_id, body FROM webhooks ORDER BY 1"
    said = await query(deployment.dsn, bodies)
    assert sum("audio_url" in row["body"] for row in said) == 1
    await query(deployment.dsn, "TRUNCATE jobs, webhooks, webhook_attempts", "SELECT 1")
    told = await recovered(deployment, "--postgres", "--webhooks")
    assert "1 documents of 1 users are to be ingested again" in told
    assert "bob (1)" in told
    assert "API keys" in told
    assert await query(deployment.dsn, bodies) == said
    deployment.worker("sink")
    await until(lambda: set(calls.values()) == {2})  # under the ids that they had


async def test_what_the_sink_has_not_stored_yet_is_left_to_it_with_its_webhook(
    deployment: Deployment, hooks: tuple[Counter[str], str]
) -> None:
    calls, url = hooks
    ingress, sink = deployment.start("ingress"), deployment.worker("sink")
    deployment.worker("gate,completion")
    await deployment.ready()
    async with client_of(ingress) as client:
        (stored,) = await ask(client, ["stored"], callback_url=url)
        await until(lambda: len(calls) == 1)
        await all_acknowledged(deployment)
        assert await sink.stop() == 0
        (waiting,) = await ask(client, ["waiting"], callback_url=url)

        async def two_outcomes() -> bool:
            return len(await deployment.records("job-finished")) == 2

        await until(two_outcomes)
        await query(deployment.dsn, "TRUNCATE jobs, webhooks, webhook_attempts", "SELECT 1")
        await recovered(deployment, "--postgres")
        assert (await jobs_by_id(deployment.dsn)).keys() == {stored}
        deployment.worker("sink")
        await all_end(deployment, [stored, waiting])
        await until(lambda: len(calls) == 2)
        assert set(calls.values()) == {1}


async def test_a_topic_is_read_in_order_in_bounded_batches_to_the_end_that_was_asked_for(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover.reader, "BATCH", 10)
    for n in range(60):
        await deployment.publish("job-progressed", b"%d" % n, key=b"%d" % (n % 3))
    ends = await ends_of(deployment.kafka.access, deployment.prefix + "job-progressed")
    assert sum(ends.values()) == 60
    busiest = max(ends, key=lambda at: ends[at])
    ends[busiest] -= 5
    seen: dict[TopicPartition, list[int]] = {}
    async for records in read(deployment.kafka.access, ends):
        assert 0 < len(records) <= 10
        at = TopicPartition(records[0].topic, records[0].partition)
        seen.setdefault(at, []).extend(record.offset for record in records)
    assert seen == {at: list(range(end)) for at, end in ends.items() if end}


async def test_what_is_missing_is_named_and_nothing_is_done(deployment: Deployment) -> None:
    done = await asyncio.to_thread(deployment.run, "recover")
    assert (done.returncode, done.stderr) == (1, "say what was lost: --postgres or --kafka\n")
    await query(deployment.dsn, "UPDATE alembic_version SET version_num = '0001'", "SELECT 1")
    done = await asyncio.to_thread(deployment.run, "recover", "--postgres")
    assert done.returncode == 1
    assert "run `assistant setup` first" in done.stderr
    done = await asyncio.to_thread(deployment.run, "recover", "--kafka", KAFKA_TOPIC_PREFIX=deployment.prefix + "no.")
    assert done.returncode == 1
    assert "is missing" in done.stderr


# --- Kafka lost ---


@pytest.fixture
def doomed(service_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A cluster to be lost."""
    running = start_kafka(service_home / tmp_path_factory.mktemp("own").name)
    yield running
    running.kill()


async def test_accepted_jobs_are_worked_on_once_after_kafka_has_lost_everything(
    doomed: Running, kafka: KafkaForTests, topic_prefix: str, postgres: PostgresForTests, api: OpenAIStandIn,
    forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    dsn = await new_database(postgres)
    own = Deployment(
        KafkaForTests(doomed.bootstrap), dsn, topic_prefix, tmp_path, environment(api.base_url), forks=forks
    )  # fmt: skip
    try:
        await own.set_up(partitions=2)
        ingress, worker = own.start("ingress"), own.worker("gate,sink")
        completion = own.worker("completion")
        await own.ready()
        async with client_of(ingress) as client:
            alice = await register(client, "alice")
            finished = await ask(client, ["finished"])
            await all_end(own, finished)
            assert await completion.stop() == 0
            accepted = await ask(client, [f"accepted {n}" for n in range(18)], provider="openai")
            client.headers.update(alice)
            accepted += await ask(client, ["of alice"], provider="openai", instruction="Be brief.")

            async def stored() -> bool:
                return set(accepted) <= (await jobs_by_id(own.dsn)).keys()

            await until(stored)
        for process in (ingress, worker):
            await process.stop()
        late, cancelled, due, without = accepted[0], accepted[1], accepted[2], accepted[3]
        await query(
            own.dsn,
            f"UPDATE jobs SET accepted_at = now() - interval '3 h', expires_at = now() - interval '2 h'"
            f" WHERE job_id = '{late}'",
            f"UPDATE jobs SET cancel_requested_at = now() WHERE job_id = '{cancelled}'",
            f"INSERT INTO due_events (due_id, job_id, run, stage, code, attempts, topic, key, headers, value, due_at)"
            f" VALUES ('d', '{due}', 1, 'generate_completion', 'provider-http-429', '[]', 't', '', '[]', '',"
            f" now() + interval '1 h')",
            f"UPDATE jobs SET request = NULL WHERE job_id = '{without}'",
            "SELECT 1",
        )
        doomed.kill()

        own.kafka = kafka  # where nothing of it is
        await own.set_up(partitions=2)
        # A crash half way: the first page was sent, the rest was not.
        monkeypatch.setattr(recover.events, "SENT_AT_ONCE", 4)
        monkeypatch.setattr(recover.events, "JOBS_AT_ONCE", 7)
        pool = Pool(own.dsn, size=2)
        with pytest.raises(RuntimeError):
            await redrive(own.kafka.access, own.catalog, pool, report=DiesAt("jobs", 4))
        assert 0 < len(await own.records("job-admitted")) <= 4
        for _ in range(2):
            told = await redrive(own.kafka.access, own.catalog, pool, report=Silent())
        await pool.close()
        assert (told.jobs, told.cancelled, told.known, told.lost) == (0, 0, 17, 1)
        told_again = await recovered(own, "--kafka")
        assert "2 users and 0 jobs were published; 0 jobs ended as cancelled, 17 were there already" in told_again
        assert "1 jobs cannot be begun again" in told_again
        admitted = [json.loads(record.value)["job"]["job_id"] for record in await own.records("job-admitted")]
        redriven = set(accepted) - {cancelled, due, without}
        assert Counter(admitted) == {str(job_id): 1 for job_id in redriven}

        ingress, _ = own.start("ingress"), own.worker("gate,completion,sink")
        await own.ready()
        rows = await all_end(own, [*redriven, cancelled])
        assert {rows[job_id]["status"] for job_id in redriven} == {"completed"}
        assert json.loads(rows[cancelled]["error"])["code"] == "cancelled"
        assert all(row["request"] is None for row in rows.values())  # kept no longer than it is needed
        prompts = {f"accepted {n}" for n in range(18)} - {f"accepted {n}" for n in (1, 2, 3)}
        assert api.calls == dict.fromkeys(prompts | {"finished", "of alice"}, 1)
        assert "0 jobs were published" in await recovered(own, "--kafka")
        async with client_of(ingress, "alice", PASSWORD) as client:
            assert (await client.get(f"/jobs/{accepted[-1]}")).json()["status"] == "completed"
            assert (await client.post("/chat/", json={"prompt": "and on"})).status_code == 200
    finally:
        own.close()
        await drop_database(postgres, dsn)


class DiesAt(Silent):
    """Breaks off once so much of a step is done."""

    def __init__(self, step: str, after: int) -> None:
        self._step, self._after, self._at, self._done = step, after, "", 0

    def begin(self, what: str, total: int) -> None:
        self._at = what

    def advance(self, done: int) -> None:
        self._done += done if self._at == self._step else 0
        if self._done >= self._after:
            raise RuntimeError("the machine went down")
