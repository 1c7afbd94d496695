import asyncio
import random
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from processors.errors import PermanentError, RetryableError
from schemas.envelope import Attributes, Envelope
from schemas.events import JobAdmitted, JobFinished, StageTiming
from schemas.job_view import outcome_view
from sinks.first_outcome import winners
from sinks.migrate import head_revision, migrate
from sinks.pool import Pool
from sinks.postgres import InvalidCursorError, JobStore, OutcomeSink, PendingSink
from sinks.unfinished import UnfinishedJobs
from sinks.users import UserExistsError, UserStore
from sinks.webhook_store import WebhookStore
from tests.factories import ACCEPTED_AT, NOW, chat_request, job, job_admitted, job_finished

pytestmark = pytest.mark.integration


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=4)
    yield pool
    await pool.close()


def wrapped(*events):
    return [Envelope(Attributes(str(uuid4()), "/test", "t"), event) for event in events]


def outcome(of, code: str | None = None, text: str = "a", run: int = 1) -> JobFinished:
    return job_finished(job=of.model_copy(update={"run": run}), code=code, result={"t": text})


async def queried(dsn: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        rows: list[asyncpg.Record] = await connection.fetch(statement)
    finally:
        await connection.close()
    return rows


async def stored(pool: Pool, job_id) -> tuple[int, str, object, object]:
    row = await JobStore(pool).get(job_id)
    assert row is not None
    return row.run, row.status, row.result, (row.error or {}).get("code")


async def test_a_job_is_pending_until_its_outcome_comes(pool: Pool) -> None:
    admitted = job_admitted()
    await PendingSink(pool).write(wrapped(admitted))
    assert await stored(pool, admitted.job.job_id) == (1, "pending", None, None)
    await OutcomeSink(pool).write(wrapped(outcome(admitted.job)))
    await PendingSink(pool).write(wrapped(admitted))
    assert await stored(pool, admitted.job.job_id) == (1, "completed", {"t": "a"}, None)


async def test_what_is_polled_is_what_the_outcome_says_also_where_its_event_came_twice(pool: Pool) -> None:
    """A direct publisher's retry is the same job, accepted at another time; the webhook tells of the outcome's."""
    first = job_admitted(job=job(metadata={"order": "7"}))
    later = first.job.accepted_at + timedelta(seconds=3)
    again = job_admitted(job=first.job.model_copy(update={"accepted_at": later}))
    await PendingSink(pool).write(wrapped(first, again))
    finished = outcome(first.job)
    await OutcomeSink(pool).write(wrapped(finished))
    row = await JobStore(pool).get(first.job.job_id)
    assert row is not None
    assert row.view() == outcome_view(finished)


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ([(None, "a", 1), (None, "b", 1)], (1, "completed", {"t": "a"}, None)),
        ([(None, "a", 1), ("timeout", "", 1)], (1, "completed", {"t": "a"}, None)),
        ([("rate-limited", "", 1), (None, "a", 1)], (1, "completed", {"t": "a"}, None)),
        ([(None, "a", 1), ("rate-limited", "", 1)], (1, "completed", {"t": "a"}, None)),
        ([("timeout", "", 1), (None, "b", 2)], (2, "completed", {"t": "b"}, None)),
        ([(None, "b", 2), ("timeout", "", 1)], (2, "completed", {"t": "b"}, None)),
        ([("rate-limited", "", 1), ("timeout", "", 1)], (1, "error", None, "timeout")),
    ],
)
@pytest.mark.parametrize("batches", ["one", "each"])
async def test_one_outcome_of_a_job_stays(pool: Pool, sequence, expected, batches: str) -> None:
    of = job(timings=(StageTiming(stage="a", started_at=NOW, ended_at=NOW),))
    outcomes = wrapped(*(outcome(of, code, text, run) for code, text, run in sequence))
    sink = OutcomeSink(pool)
    for part in [outcomes] if batches == "one" else [[each] for each in outcomes]:
        await sink.write(part)
    assert await stored(pool, of.job_id) == expected


async def test_any_split_of_a_log_into_batches_stores_the_same(pool: Pool) -> None:
    dice = random.Random(7)
    jobs = [job() for _ in range(20)]
    codes = [None, "rate-limited", "timeout"]
    log = [outcome(dice.choice(jobs), dice.choice(codes), str(n), dice.choice([1, 1, 2])) for n in range(300)]
    expected = {outcome.payload.job.job_id: outcome.payload for outcome in winners(wrapped(*log))}
    sink, at = OutcomeSink(pool), 0
    while at < len(log):
        size = dice.randint(1, 40)
        await sink.write(wrapped(*log[at : at + size]))
        at += dice.randint(1, size)  # part of it is delivered again
    for job_id, finished in expected.items():
        code = finished.error.code if finished.error else None
        assert await stored(pool, job_id) == (finished.job.run, finished.status, finished.result, code)


async def test_nobody_elses_job_can_be_overwritten(pool: Pool) -> None:
    mine = job(user_id="alice")
    await PendingSink(pool).write(wrapped(job_admitted(job=mine)))
    await OutcomeSink(pool).write(wrapped(outcome(mine.model_copy(update={"user_id": "mallory"}), run=9)))
    assert (await stored(pool, mine.job_id))[1] == "pending"


async def test_a_webhook_is_due_once_per_outcome_that_stays(pool: Pool, database: str) -> None:
    told = []
    sink = OutcomeSink(pool, webhook_due=lambda: told.append(1))
    of = job(callback_url="https://example.com/hook")
    await sink.write(wrapped(outcome(of), outcome(job())))
    await sink.write(wrapped(outcome(of, text="again")))
    rows = await queried(database, "SELECT url, body FROM webhooks")
    assert [row["url"] for row in rows] == ["https://example.com/hook"]
    assert '"type":"job.completed"' in rows[0]["body"]
    assert told == [1]


async def test_a_row_that_is_refused_is_said_so_and_leaves_its_mark(pool: Pool) -> None:
    bad = outcome(job())
    bad = bad.model_copy(update={"result": {"text": "nul \x00"}})
    sink = OutcomeSink(pool)
    with pytest.raises(PermanentError):
        await sink.write(wrapped(outcome(job()), bad))
    await sink.write_poisoned(wrapped(bad)[0])
    assert await stored(pool, bad.job.job_id) == (1, "error", None, "unexpected-error")


@pytest.mark.parametrize("result", [{"n": 10**30}, {"text": "\ud800"}, {"text": "nul \x00"}])
async def test_what_json_in_postgres_cannot_hold_is_refused(pool: Pool, result) -> None:
    with pytest.raises(PermanentError):
        await OutcomeSink(pool).write(wrapped(outcome(job()).model_copy(update={"result": result})))


async def test_who_waits_for_a_webhook_hears_of_a_row_that_was_refused(pool: Pool, database: str) -> None:
    finished = outcome(job(callback_url="https://example.com/hook", metadata={"a": "\x00"}))
    await OutcomeSink(pool).write_poisoned(wrapped(finished)[0])
    (row,) = await queried(database, "SELECT url, body FROM webhooks")
    assert '"type":"job.failed"' in row["body"]


async def test_a_callback_that_cannot_be_stored_costs_only_the_webhook(pool: Pool, database: str) -> None:
    finished = outcome(job(callback_url="https://example.com/\x00"))
    await OutcomeSink(pool).write_poisoned(wrapped(finished)[0])
    assert await stored(pool, finished.job.job_id) == (1, "error", None, "unexpected-error")
    assert await queried(database, "SELECT * FROM webhooks") == []


async def test_a_row_that_can_never_be_stored_stops_nothing(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    finished = outcome(job(), run=2**40)
    await OutcomeSink(pool).write_poisoned(wrapped(finished)[0])
    assert "can have no row" in caplog.text
    assert await JobStore(pool).get(finished.job.job_id) is None


async def test_nothing_to_write_is_no_error(pool: Pool) -> None:
    await OutcomeSink(pool).write([])
    await PendingSink(pool).write([])


async def test_replicas_with_the_same_jobs_in_other_orders_never_block_each_other(pool: Pool) -> None:
    jobs = [job() for _ in range(200)]
    sink = OutcomeSink(pool)
    orders = [random.Random(seed).sample(jobs, len(jobs)) for seed in range(4)]
    await asyncio.gather(*(sink.write(wrapped(*(outcome(each) for each in order))) for order in orders))
    assert len(await JobStore(pool).finished([each.job_id for each in jobs])) == 200


async def test_the_pool_recovers_by_itself(pool: Pool, postgres, database: str) -> None:
    """Every connection is cut and no new one is let in, as when the server restarts."""
    name = urlsplit(database).path[1:]
    sink, finished = OutcomeSink(pool), outcome(job())
    await sink.write(wrapped(outcome(job())))
    await queried(postgres.dsn, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await queried(postgres.dsn, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    for _ in range(3):
        with pytest.raises(RetryableError):
            await sink.write(wrapped(finished))
    assert not await pool.answers(within_s=10)
    await queried(postgres.dsn, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    await sink.write(wrapped(finished))
    assert (await stored(pool, finished.job.job_id))[1] == "completed"


@pytest.mark.parametrize("parameters", ["", "?sslmode=prefer"])
async def test_several_processes_may_migrate_at_once(postgres, parameters: str) -> None:
    name = f"test_{uuid4().hex[:10]}"
    await queried(postgres.dsn, f'CREATE DATABASE "{name}"')
    dsn = urlunsplit(urlsplit(postgres.dsn)._replace(path=f"/{name}"))
    try:
        script = f"import asyncio; from sinks.migrate import migrate; asyncio.run(migrate({dsn + parameters!r}))"
        started = [await asyncio.create_subprocess_exec(sys.executable, "-c", script) for _ in range(3)]
        assert [await process.wait() for process in started] == [0, 0, 0]
        (row,) = await queried(dsn, "SELECT version_num FROM alembic_version")
        assert row["version_num"] == head_revision()
    finally:
        await queried(postgres.dsn, f'DROP DATABASE "{name}" WITH (FORCE)')


async def test_a_database_that_lets_nobody_in_is_named_by_migrate(postgres) -> None:
    with pytest.raises(OSError, match="does not exist"):
        await migrate(urlunsplit(urlsplit(postgres.dsn)._replace(path="/no_such_database")))


async def test_a_database_that_is_away_is_retryable() -> None:
    pool = Pool("postgresql://nobody@127.0.0.1:1/none", size=1)
    with pytest.raises(RetryableError):
        await JobStore(pool).get(uuid4())


async def test_pages_go_through_all_jobs_newest_first(pool: Pool) -> None:
    jobs = [job(accepted_at=ACCEPTED_AT + timedelta(seconds=n // 2)) for n in range(7)]
    await PendingSink(pool).write(wrapped(*(job_admitted(job=each) for each in [*jobs, job(user_id="bob")])))
    store, cursor, seen = JobStore(pool), None, []
    for _ in range(4):
        rows, cursor = await store.page(user_id="alice", status=None, limit=3, cursor=cursor)
        seen += [row.job_id for row in rows]
        if cursor is None:
            break
    assert seen == [each.job_id for each in sorted(jobs, key=lambda j: (j.accepted_at, j.job_id), reverse=True)]
    with pytest.raises(InvalidCursorError):
        await store.page(user_id="alice", status=None, limit=3, cursor="nonsense")


async def test_a_user_is_created_once(pool: Pool) -> None:
    users = UserStore(pool)
    created = await users.create("carol", "hash", "admin")
    assert (created.role, created.announced) == ("admin", False)
    with pytest.raises(UserExistsError):
        await users.create("carol", "other", "user")
    async with users.announcing("carol") as row:
        assert row == created
    found = await users.get("carol")
    assert found is not None
    assert found.announced


async def test_a_request_is_kept_for_as_long_as_there_is_no_outcome(pool: Pool) -> None:
    request = chat_request("Why?", provider="openai", generation_config={"temperature": 0.5})
    one, other = job_admitted(job=job(role="admin", metadata={"a": "b"}), request=request), job_admitted()
    await PendingSink(pool).write(wrapped(one, other))
    unfinished = UnfinishedJobs(pool)
    assert await unfinished.count() == 2
    (found,) = await unfinished.renew([one.job.job_id], now=ACCEPTED_AT)
    assert found.job == one.job
    assert found.request == {"prompt": "Why?", "provider": "openai", "generation_config": {"temperature": 0.5}}
    assert JobAdmitted.model_validate({"job": found.job, "request": found.request}).request == request
    await OutcomeSink(pool).write(wrapped(outcome(one.job)))
    assert await unfinished.page(after=None, limit=10) == [other.job.job_id]
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT request FROM jobs WHERE job_id = $1", one.job.job_id) is None


async def test_an_unfinished_job_is_given_the_time_that_it_had(pool: Pool) -> None:
    short, long = job(), job(expires_at=ACCEPTED_AT + timedelta(days=9))
    await PendingSink(pool).write(wrapped(job_admitted(job=short), job_admitted(job=long)))
    store, later = UnfinishedJobs(pool), ACCEPTED_AT + timedelta(days=30)
    found = await store.renew([short.job_id, long.job_id], now=later)
    renewed = {each.job.job_id: each.job.expires_at - later for each in found}
    assert renewed == {short.job_id: timedelta(hours=1), long.job_id: timedelta(days=1)}
    (again,) = await store.renew([short.job_id], now=ACCEPTED_AT)
    assert again.job.expires_at == later + timedelta(hours=1)  # never less than it has


async def test_unfinished_jobs_come_in_pages_without_those_that_wait_for_their_retry(pool: Pool, database: str) -> None:
    jobs = sorted((job() for _ in range(5)), key=lambda each: each.job_id)
    await PendingSink(pool).write(wrapped(*(job_admitted(job=each) for each in jobs)))
    await queried(
        database,
        "INSERT INTO due_events (due_id, job_id, run, stage, code, attempts, topic, key, headers, value, due_at)"
        f" VALUES ('d', '{jobs[2].job_id}', 1, 's', 'c', '[]', 't', '', '[]', '', now())",
    )
    store, after, seen = UnfinishedJobs(pool), None, []
    while page := await store.page(after=after, limit=3):
        assert len(page) <= 3
        after = page[-1]
        seen += page
    assert seen == [each.job_id for each in jobs if each is not jobs[2]]


async def test_outcomes_that_were_stored_before_leave_webhooks_that_nobody_sends(pool: Pool, database: str) -> None:
    told = []
    sink = OutcomeSink(pool, webhook_due=lambda: told.append(1), give_up_webhooks="stored before")
    of = job(callback_url="https://example.com/hook")
    for _ in range(2):
        await sink.write(wrapped(outcome(of)))
    assert [row["state"] for row in await queried(database, "SELECT state FROM webhooks")] == ["given-up"]
    (attempt,) = await WebhookStore(pool).attempts(of.job_id)
    assert (attempt["attempt"], attempt["error"]) == (0, "stored before")


async def test_users_come_in_pages_and_those_who_are_missing_are_named(pool: Pool) -> None:
    users, after, seen = UserStore(pool), "", []
    for name in ("dora", "alice", "bob"):
        await users.create(name, "hash", "user")
    while page := await users.page(after=after, limit=2):
        assert len(page) <= 2
        after = page[-1].user_id
        seen += [row.user_id for row in page]
    assert seen == ["alice", "bob", "dora"]
    assert await users.unknown(["zoe", "alice", "eve"]) == ["eve", "zoe"]


async def test_a_migration_can_be_taken_back(postgres) -> None:
    from alembic import command

    from sinks.migrate import _config

    name = f"test_{uuid4().hex[:10]}"
    await queried(postgres.dsn, f'CREATE DATABASE "{name}"')
    dsn = urlunsplit(urlsplit(postgres.dsn)._replace(path=f"/{name}"))
    try:
        await migrate(dsn)
        await asyncio.to_thread(command.downgrade, _config(dsn), "base")
        tables = await queried(dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert [row["tablename"] for row in tables] == ["alembic_version"]
        await migrate(dsn)
    finally:
        await queried(postgres.dsn, f'DROP DATABASE "{name}" WITH (FORCE)')
