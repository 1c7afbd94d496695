"""Jobs that nobody takes up are ended from their rows: once, by who would store it, and not by a wrong clock."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from faust.types import TP

from schemas.envelope import Attributes, Envelope, Record
from schemas.events import Job, JobFinished
from schemas.topics import Catalog
from sinks.pool import Pool
from sinks.postgres import JobStore, OutcomeSink, PendingSink
from streams.deadlines import GRACE_S, MAX_PER_ROUND, Deadlines
from streams.encode import Encoder
from streams.own_outcomes import MAX_LAG
from tests.factories import ACCEPTED_AT, job, job_admitted

pytestmark = pytest.mark.integration

TOPIC = "job-finished"
EXPIRED_AT = ACCEPTED_AT + timedelta(seconds=5)


@dataclass
class FakeConsumer:
    """Owns some of four partitions; `lags` of them."""

    owned: set[int] = field(default_factory=lambda: {0, 1, 2, 3})
    lags: dict[int, int] = field(default_factory=dict)

    def assignment(self) -> set[TP]:
        return {TP("job-admitted", 0), *(TP(TOPIC, number) for number in self.owned)}

    async def highwaters(self, *partitions: TP) -> dict[TP, int]:
        return {tp: 1000 + self.lags.get(tp.partition, 0) for tp in partitions}

    def finished_up_to(self, tp: TP) -> int:
        return 1000

    def key_partition(self, topic: str, key: bytes) -> int:
        return sum(key) % 4


class FakeApp:
    """What was published."""

    def __init__(self) -> None:
        self.consumer, self.rebalancing, self.published = FakeConsumer(), False, list[Record]()

    async def publish(self, records: Sequence[Record]) -> None:
        self.published += records

    def ended(self) -> set[str]:
        return {(record.key or b"").decode() for record in self.published}


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=2)
    yield pool
    await pool.close()


async def pending(pool: Pool, *jobs: Job) -> None:
    await PendingSink(pool).write([Envelope(Attributes("1", "/t", "t"), job_admitted(job=of)) for of in jobs])


def deadlines(pool: Pool, app: FakeApp, *, after_s: float = GRACE_S + 1, clock_is_right: bool = True) -> Deadlines:
    return Deadlines(
        app,  # type: ignore[arg-type]  # a fake
        Encoder(Catalog.load()), JobStore(pool), finished_topic=TOPIC, clock_is_right=lambda: clock_is_right,
        now=lambda: EXPIRED_AT + timedelta(seconds=after_s),
    )  # fmt: skip


def some(count: int, **overrides) -> list[Job]:
    return [job(expires_at=EXPIRED_AT, **overrides) for _ in range(count)]


async def test_an_overdue_job_is_ended_as_its_row_knows_it_and_once(pool: Pool) -> None:
    app = FakeApp()
    (of,) = some(1, role="admin", kind="chat", metadata={"a": "b"}, callback_url="https://example.com/hook")
    await pending(pool, of)
    assert await deadlines(pool, app, after_s=GRACE_S - 1).end_overdue() == 0
    assert await deadlines(pool, app).end_overdue() == 1
    assert await deadlines(pool, app, after_s=GRACE_S + 9).end_overdue() == 1  # not stored yet: the same id
    first, second = app.published
    assert dict(first.headers)["ce_id"] == dict(second.headers)["ce_id"]
    finished = JobFinished.model_validate_json(first.value or b"")
    assert finished.job == of
    assert finished.error is not None
    assert finished.error.code == "expired"
    await OutcomeSink(pool).write([Envelope(Attributes("1", "/t", "t"), finished)])
    assert await deadlines(pool, app).end_overdue() == 0


async def test_one_whose_clock_is_wrong_or_whose_group_rebalances_ends_nothing(pool: Pool) -> None:
    app = FakeApp()
    await pending(pool, *some(3))
    assert await deadlines(pool, app, clock_is_right=False).end_overdue() == 0
    app.rebalancing = True
    assert await deadlines(pool, app).end_overdue() == 0
    app.rebalancing = False
    assert await deadlines(pool, app).end_overdue() == 3


async def test_jobs_whose_outcomes_may_wait_in_the_topic_are_left(pool: Pool) -> None:
    app, jobs = FakeApp(), some(40)
    await pending(pool, *jobs)
    app.consumer.lags = {0: MAX_LAG + 1, 1: MAX_LAG}
    await deadlines(pool, app).end_overdue()
    expected = {str(of.job_id) for of in jobs if app.consumer.key_partition(TOPIC, str(of.job_id).encode()) != 0}
    assert app.ended() == expected


async def test_two_replicas_share_the_jobs_and_end_each_once(pool: Pool) -> None:
    one, other, jobs = FakeApp(), FakeApp(), some(40)
    one.consumer.owned, other.consumer.owned = {0, 1}, {2, 3}
    await pending(pool, *jobs)
    await deadlines(pool, one).end_overdue()
    await deadlines(pool, other).end_overdue()
    assert one.ended() | other.ended() == {str(of.job_id) for of in jobs}
    assert not one.ended() & other.ended()
    one.consumer.owned = set()
    assert await deadlines(pool, one).end_overdue() == 0


async def test_a_round_is_bounded(pool: Pool) -> None:
    app = FakeApp()
    await pending(pool, *some(MAX_PER_ROUND + 10))
    assert await deadlines(pool, app).end_overdue() == MAX_PER_ROUND
