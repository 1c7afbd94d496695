import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from processors.errors import RetryableError
from schemas.dead_letter import DeadLettered
from schemas.envelope import Attributes, Envelope
from schemas.events import JobFinished
from sinks import dead_letters
from sinks.dead_letters import Claim, DeadLetterRow, DeadLetterSink, DeadLetterStore, Filter, sweep
from sinks.pool import Pool
from sinks.postgres import InvalidCursorError, JobStore, OutcomeSink
from streams.serve_sink import write_all
from tests.factories import job, job_finished
from tests.waiting import until

pytestmark = pytest.mark.integration
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOW = AT + timedelta(hours=1)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=8)
    yield pool
    await pool.close()


def letter(offset: int = 0, **overrides: Any) -> DeadLettered:
    fields: dict[str, Any] = {
        "partition": 0, "offset": offset, "at": AT + timedelta(seconds=offset), "topic": "t", "stage": "s",
        "code": "provider-http-401", "reason": "r", "attempts": 1, "job_id": None, "run": None, "user_id": None,
        "outcome_id": None, "key": b"k", "headers": [], "value": b"{}",
    }  # fmt: skip
    return DeadLettered(**fields | overrides)


def wrapped(found: Any) -> Envelope[Any]:
    return Envelope(Attributes("", "", "dead-letters"), found)


async def store(pool: Pool, *letters: DeadLettered) -> DeadLetterStore:
    await DeadLetterSink(pool).write([wrapped(found) for found in letters])
    return DeadLetterStore(pool)


async def failed_job(pool: Pool, *, run: int = 1, outcome_id: str = "o-1", **overrides: Any) -> UUID:
    """A job that has ended with this outcome."""
    of = job(run=run, **overrides)
    finished: JobFinished = job_finished(job=of, code="provider-http-401")
    await OutcomeSink(pool).write([Envelope(Attributes(outcome_id, "/s", "job-finished"), finished)])
    return of.job_id


def of_job(job_id: UUID, **overrides: Any) -> DeadLettered:
    fields: dict[str, Any] = {"job_id": job_id, "run": 1, "user_id": "alice", "outcome_id": "o-1"}
    return letter(**fields | overrides)


async def claimed(store: DeadLetterStore, found: DeadLetterRow, now: datetime = NOW) -> Claim | str:
    return await store.claim(found, expires_at=now + timedelta(hours=1), now=now)


async def test_any_bytes_come_back_as_they_were_and_twice_is_once(pool: Pool) -> None:
    headers = [("odd\x00\u2028name", b"\xff\x00"), ("none", None), ("", b""), ("dlq-code", "ü".encode())]
    odd = letter(key=None, value=b"\x00\xff", headers=headers)
    for _ in range(2):
        found = await store(pool, odd, letter(1, value=None, key=b""))
    row = await found.get(0, 0)
    assert row is not None
    assert (row.key, list(row.headers), row.value) == (None, headers, b"\x00\xff")
    other = await found.get(0, 1)
    assert other is not None
    assert (other.key, other.value) == (b"", None)
    assert len((await found.page(Filter(), limit=10, cursor=None))[0]) == 2
    assert await found.get(1, 0) is None


async def test_a_topic_that_was_made_anew_has_its_own(pool: Pool) -> None:
    job_id = await failed_job(pool)
    found = await store(pool, letter(), of_job(job_id, at=AT + timedelta(days=1)))
    (newest, oldest), _ = await found.page(Filter(), limit=10, cursor=None)
    assert (newest.job_id, oldest.job_id) == (job_id, None)
    assert (await found.get(0, 0) or oldest).job_id == job_id
    assert isinstance(await claimed(found, newest), Claim)
    again, _ = await found.page(Filter(), limit=10, cursor=None)
    assert [row.redriven_run for row in again] == [2, None]


async def test_large_ones_go_in_several_statements(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[int] = []
    part = dead_letters._in_parts

    def counted(letters: Any) -> Any:
        for rows in part(letters):
            statements.append(sum(len(row[-1]) for row in rows))
            yield rows

    monkeypatch.setattr(dead_letters, "_in_parts", counted)
    found = await store(pool, *(letter(n, value=b"x" * 1_000_000) for n in range(10)))
    assert statements == [4_000_000, 4_000_000, 2_000_000]
    assert len((await found.page(Filter(), limit=100, cursor=None))[0]) == 10


async def test_one_that_is_refused_leaves_a_mark_and_holds_up_no_other(pool: Pool) -> None:
    refused = letter(1, code="\x00", topic="\ud800")
    envelopes = [wrapped(found) for found in (letter(0), refused, letter(2))]
    await write_all(DeadLetterSink(pool), envelopes, name="s")
    rows, _ = await DeadLetterStore(pool).page(Filter(), limit=10, cursor=None)
    assert sorted(row.offset for row in rows) == [0, 1, 2]
    mark = await DeadLetterStore(pool).get(0, 1)
    assert mark is not None
    assert "could not be stored" in mark.reason
    assert mark.at == refused.at  # or the next sweep would take it


async def test_pages_are_walked_newest_first_and_a_redrive_oldest_first(pool: Pool) -> None:
    same = [letter(n, at=AT) for n in range(3)]  # the cursor tells them apart
    found = await store(pool, *same, letter(7), letter(9))
    seen: list[int] = []
    cursor = None
    while True:
        rows, cursor = await found.page(Filter(), limit=2, cursor=cursor)
        seen += [row.offset for row in rows]
        if cursor is None:
            break
    assert seen == [9, 7, 2, 1, 0]
    first = await found.oldest(Filter(), limit=2, after=None)
    rest = await found.oldest(Filter(), limit=10, after=first[-1].cursor)
    assert [row.offset for row in (*first, *rest)] == [0, 1, 2, 7, 9]
    for wrong in ("x", "W10", "bnVsbA", "WyJ4IiwwLDBd", "WyIyMDI2LTAxLTAyIiwwLDBd"):
        with pytest.raises(InvalidCursorError):
            await found.page(Filter(), limit=1, cursor=wrong)


async def test_a_filter_takes_what_fits_in_every_way(pool: Pool) -> None:
    job_id = uuid4()
    found = await store(
        pool, letter(0), letter(1, code="c"), letter(2, code="c", stage="other"), letter(3, code="c", job_id=job_id)
    )  # fmt: skip

    async def offsets(**wanted: Any) -> list[int]:
        rows, _ = await found.page(Filter(**wanted), limit=10, cursor=None)
        assert [row.offset for row in await found.oldest(Filter(**wanted), limit=10, after=None)] == [
            row.offset for row in reversed(rows)
        ]  # fmt: skip
        return sorted(row.offset for row in rows)

    assert await offsets(code="c") == [1, 2, 3]
    assert await offsets(code="c", stage="s") == [1, 3]
    assert await offsets(job_id=job_id) == [3]
    assert await offsets(since=AT + timedelta(seconds=1), to=AT + timedelta(seconds=3)) == [1, 2]


async def test_of_many_claims_at_once_one_gets_the_next_run(pool: Pool) -> None:
    job_id = await failed_job(pool)
    found = await store(pool, of_job(job_id))
    (row,) = await found.oldest(Filter(), limit=1, after=None)
    claims = await asyncio.gather(*(claimed(found, row) for _ in range(8)))
    (claim,) = [claim for claim in claims if isinstance(claim, Claim)]
    assert claim.run == 2
    assert {reason for reason in claims if isinstance(reason, str)} == {"it was redriven already: run 2 is under way"}
    stored = await JobStore(pool).get(job_id)
    assert stored is not None
    assert (stored.run, stored.status, stored.error, stored.finished_at) == (2, "pending", None, None)
    assert stored.expires_at == NOW + timedelta(hours=1)


async def test_a_job_that_ended_otherwise_is_left_alone(pool: Pool) -> None:
    other, newer, foreign = (
        await failed_job(pool, outcome_id="o-2"),
        await failed_job(pool, run=2),
        await failed_job(pool),
    )
    found = await store(
        pool, of_job(other), of_job(newer, offset=1), of_job(foreign, offset=2, user_id="mallory"),
        of_job(uuid4(), offset=3),
    )  # fmt: skip
    reasons = [await claimed(found, row) for row in await found.oldest(Filter(), limit=9, after=None)]
    otherwise = "the job has ended otherwise since, or runs again"
    assert reasons == [
        otherwise, otherwise, "the job is somebody else's", "the job is not stored, or no longer",
    ]  # fmt: skip
    for job_id in (other, newer, foreign):
        stored = await JobStore(pool).get(job_id)
        assert stored is not None
        assert stored.status == "error"


async def test_what_was_not_published_is_given_back_as_it_was(pool: Pool) -> None:
    job_id = await failed_job(pool)
    before = await JobStore(pool).get(job_id)
    found = await store(pool, of_job(job_id))
    (row,) = await found.oldest(Filter(), limit=1, after=None)
    for _ in range(2):  # and may be claimed again
        claim = await claimed(found, row)
        assert isinstance(claim, Claim)
        await found.release(claim)
        assert await JobStore(pool).get(job_id) == before
    (row,) = await found.oldest(Filter(), limit=1, after=None)
    assert (row.redriven_at, row.redriven_run) == (None, None)


async def test_a_claim_of_which_nothing_was_heard_is_given_again_with_the_same_run(pool: Pool) -> None:
    job_id = await failed_job(pool)
    found = await store(pool, of_job(job_id))
    (row,) = await found.oldest(Filter(), limit=1, after=None)
    assert isinstance(await claimed(found, row), Claim)
    assert await claimed(found, row, NOW + timedelta(seconds=59)) == "it was redriven already: run 2 is under way"
    again = await claimed(found, row, NOW + timedelta(seconds=61))
    assert isinstance(again, Claim)
    assert again.run == 2
    await found.release(again)  # of the first one something may still come
    stored = await JobStore(pool).get(job_id)
    assert stored is not None
    assert stored.status == "pending"
    await found.confirm(again)
    assert await claimed(found, row, NOW + timedelta(days=1)) == "it was redriven already: run 2 is under way"


async def test_the_next_runs_outcome_replaces_the_first_and_is_redriven_from_its_own_letter(pool: Pool) -> None:
    job_id = await failed_job(pool)
    found = await store(pool, of_job(job_id))
    (row,) = await found.oldest(Filter(), limit=1, after=None)
    claim = await claimed(found, row)
    assert isinstance(claim, Claim)
    await found.confirm(claim)
    await failed_job(pool, job_id=job_id, outcome_id="o-1")  # the first run's again
    assert await claimed(found, row) == "it was redriven already: run 2 is under way"
    await failed_job(pool, job_id=job_id, run=2, outcome_id="o-2")
    assert await claimed(found, row) == "it was redriven already, as run 2"
    await store(pool, of_job(job_id, offset=1, run=2, outcome_id="o-2"))
    (second,) = await found.oldest(Filter(), limit=1, after=row.cursor)
    third = await claimed(found, second)
    assert isinstance(third, Claim)
    assert third.run == 3


async def test_old_ones_leave_in_bounded_batches(pool: Pool) -> None:
    found = await store(pool, *(letter(n) for n in range(7)))
    assert await found.delete_older_than(AT + timedelta(seconds=5), limit=3) == 3
    assert await found.delete_older_than(AT + timedelta(seconds=5), limit=3) == 2
    assert await found.delete_older_than(AT + timedelta(seconds=5), limit=3) == 0
    assert [row.offset for row in (await found.page(Filter(), limit=9, cursor=None))[0]] == [6, 5]


async def test_the_sweep_takes_what_the_topic_no_longer_keeps_also_after_an_outage(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "SWEEP_EVERY_S", 0.01)
    now = datetime.now(UTC)
    found = await store(pool, letter(0, at=now - timedelta(days=15)), letter(1, at=now - timedelta(days=13)))
    delete, outages = found.delete_older_than, [RetryableError("postgres-unavailable", "away")]

    async def flaky(at: datetime, **options: Any) -> int:
        if outages:
            raise outages.pop()
        return await delete(at, **options)

    monkeypatch.setattr(found, "delete_older_than", flaky)
    sweeping = asyncio.create_task(sweep(found, kept_ms=14 * 86_400_000))

    async def swept() -> bool:
        return [row.offset for row in (await found.page(Filter(), limit=9, cursor=None))[0]] == [1]

    await until(swept)
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)
