"""Reading all jobs in pages: nothing twice, nothing left out, and never much at once."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from processors.errors import PermanentError
from sinks.job_export import MAX_ROWS, JobExport, Page, Place, Wanted
from sinks.pool import Pool
from sinks.postgres import JobRow

pytestmark = pytest.mark.integration
BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=1)
    yield pool
    await pool.close()


async def store(dsn: str, *jobs: dict[str, Any]) -> list[UUID]:
    """Rows as they are written, each one second after the one before it, unless it says when."""
    rows = []
    for n, job in enumerate(jobs):
        at = job.get("at", BEGAN + timedelta(seconds=n))
        provider, text = job.get("provider", "openai"), job.get("text", f"answer {n}")
        status = job.get("status", "completed")
        result = {"result": {"text": text}, "meta": {"provider": provider}} if status == "completed" else None
        attempts = [{"provider": "first", "ms": 1}, {"provider": provider, "ms": 2}] if status != "pending" else None
        rows.append((
            job.get("job_id") or uuid4(), job.get("user_id", "alice"), status,
            json.dumps(result) if result else None, json.dumps(attempts) if attempts else None, at,
        ))  # fmt: skip
    connection = await asyncpg.connect(dsn)
    try:
        await connection.executemany(
            """INSERT INTO jobs (job_id, user_id, kind, status, result, attempts, accepted_at, expires_at)
               VALUES ($1, $2, 'chat', $3, $4, $5, $6, $6)""",
            rows,
        )  # fmt: skip
    finally:
        await connection.close()
    return [row[0] for row in rows]


async def pages(export: JobExport, wanted: Wanted) -> list[Page]:
    found: list[Page] = []
    position = export.start(wanted)
    while True:
        page = await export.page(wanted, position)
        found.append(page)
        if page.following is None:
            return found
        position = page.following


async def exported(export: JobExport, wanted: Wanted) -> list[JobRow]:
    return [job for page in await pages(export, wanted) for job in page.jobs]


async def test_every_job_comes_once_and_the_oldest_first_also_where_many_have_one_time(
    pool: Pool, database: str
) -> None:
    at_once = [{"at": BEGAN} for _ in range(700)]
    before, after = {"at": BEGAN - timedelta(microseconds=1)}, {"at": BEGAN + timedelta(microseconds=1)}
    job_ids = await store(database, *at_once, after, before)
    for page_bytes in (1, 5_000, 10_000_000):
        found = [job.job_id for job in await exported(JobExport(pool, page_bytes=page_bytes), Wanted("alice"))]
        assert found == [job_ids[-1], *sorted(job_ids[:700]), job_ids[-2]]


async def test_all_that_is_asked_for_must_fit(pool: Pool, database: str) -> None:
    jobs: list[dict[str, Any]] = [
        {}, {"user_id": "bob"}, {"status": "error", "provider": "local"}, {"status": "pending"}, {"provider": "local"}
    ]  # fmt: skip
    job_ids = await store(database, *jobs)
    for wanted, fitting in (
        (Wanted("alice"), (0, 2, 3, 4)), (Wanted(None), (0, 1, 2, 3, 4)), (Wanted("bob"), (1,)), (Wanted("eve"), ()),
        (Wanted("alice", status="completed"), (0, 4)), (Wanted("alice", status="pending"), (3,)),
        (Wanted(None, provider="openai"), (0, 1)), (Wanted(None, provider="local"), (2, 4)),
        (Wanted(None, provider="first"), ()),
        (Wanted(None, begin=BEGAN + timedelta(seconds=1), end=BEGAN + timedelta(seconds=3)), (1, 2)),
        (Wanted("alice", status="error", provider="local", begin=BEGAN), (2,)),
    ):  # fmt: skip
        found = [job.job_id for job in await exported(JobExport(pool), wanted)]
        assert found == [job_ids[n] for n in fitting], wanted


async def test_it_goes_on_behind_any_job_of_which_accepted_at_and_id_are_known(pool: Pool, database: str) -> None:
    await store(database, *({"at": BEGAN + timedelta(microseconds=n // 3)} for n in range(50)))
    export = JobExport(pool, page_bytes=500)
    whole = await exported(export, Wanted("alice"))
    for n, job in enumerate(whole):
        view = job.view()
        place = Place.parse(f"{view['accepted_at']}/{view['job_id']}")
        assert await exported(export, Wanted("alice", after=place)) == whole[n + 1 :]
    beginning = Wanted("alice", begin=whole[20].accepted_at, after=Place(BEGAN - timedelta(days=1), uuid4()))
    assert (await exported(export, beginning))[0].accepted_at == whole[20].accepted_at


SOME_ID = UUID("3a09c4da-6262-4df1-80b6-a0675a98745e")  # the same in every process that collects the tests


@pytest.mark.parametrize(
    "text", ["", "/", "x", "2026-01-02T03:04:05Z", f"yesterday/{SOME_ID}", "2026-01-02T03:04:05Z/7",
             f"1900-01-01T00:00:00Z/{SOME_ID}", f"9999-12-31T23:59:59-14:00/{SOME_ID}"],
)  # fmt: skip
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(PermanentError) as caught:
        Place.parse(text)
    assert caught.value.code == "invalid-cursor"


async def test_a_page_has_a_bound_in_bytes_however_large_the_answers_are(pool: Pool, database: str) -> None:
    sizes = [10, 90_000, 10, 10, 40_000, 40_000, 40_000, *([200] * 400), *([90_000] * 30)]
    job_ids = await store(database, *({"text": "x" * size} for size in sizes))
    found = await pages(JobExport(pool, page_bytes=50_000), Wanted("alice"))
    assert [job.job_id for page in found for job in page.jobs] == job_ids
    for page in found:
        texts = [len(job.result["result"]["text"]) for job in page.jobs if job.result]
        assert len(texts) == 1 or sum(texts[:-1]) < 50_000
    assert len(found) < 80  # and small ones are not asked for one by one


async def test_a_filter_that_nearly_nothing_fits_takes_pages_of_a_bounded_number_of_rows(
    pool: Pool, database: str
) -> None:
    jobs: list[dict[str, Any]] = [{"provider": "openai"} for _ in range(5_000)]
    jobs[4_900]["provider"] = "rare"
    job_ids = await store(database, *jobs)
    found = await pages(JobExport(pool), Wanted("alice", provider="rare"))
    assert [job.job_id for page in found for job in page.jobs] == [job_ids[4_900]]
    assert len(found) >= 5_000 // MAX_ROWS


async def test_a_users_export_does_not_go_through_everybodys_rows(pool: Pool, database: str) -> None:
    from sinks.job_export import OF_A_USER

    await store(database, *({"user_id": f"user-{n % 50}"} for n in range(5_000)))
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("ANALYZE jobs")
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        prepared = f"PREPARE page (text, timestamptz, uuid, timestamptz, text, text, bigint, bigint) AS {OF_A_USER}"
        await connection.execute(prepared)
        nil = UUID(int=0)
        plan = await connection.fetch(
            f"""EXPLAIN EXECUTE page ('user-7', '1970-01-01', '{nil}', '2999-01-01', NULL, NULL, 64, 1000)"""
        )
    finally:
        await connection.close()
    assert any("jobs_of_a_user" in row[0] for row in plan), "\n".join(row[0] for row in plan)
