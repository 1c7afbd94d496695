from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer

from ingress.follower import Follower
from processors.errors import PermanentError
from schemas.requests import JobKind
from schemas.topics import Catalog
from sinks.postgres import JobRow
from tests.conftest import KafkaForTests
from tests.factories import NOW, job, job_finished
from tests.waiting import until
from transport.clients import KafkaAccess

pytestmark = pytest.mark.integration

NOWHERE = KafkaAccess("127.0.0.1:1")
ROW = JobRow(
    job_id=uuid4(), run=0, user_id="alice", kind="chat", status="completed", result=None, error=None, attempts=None,
    timings=None, metadata=None, accepted_at=NOW, expires_at=NOW, finished_at=NOW,
)  # fmt: skip


class BrokenStore:
    """Looks nothing up."""

    def __init__(self) -> None:
        self.asked = 0

    async def finished(self, job_ids: object) -> list[object]:
        self.asked += 1
        raise PermanentError("row-refused", "a bug")


async def test_a_follower_outlives_a_bug_and_says_so(
    kafka: KafkaForTests, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingress.follower.LOOK_UP_AFTER_S", 0)
    monkeypatch.setattr("ingress.follower.LOOK_UP_EVERY_S", 0.01)
    topic = catalog.full_name("job-finished")
    store = BrokenStore()
    follower = Follower(
        kafka.access, progressed=catalog.full_name("job-progressed"), finished=topic, store=store,  # type: ignore[arg-type]
    )  # fmt: skip
    take = follower._take_finished

    def fail_once(key: bytes, value: bytes) -> None:
        monkeypatch.setattr(follower, "_take_finished", take)
        raise ValueError("a bug")

    monkeypatch.setattr(follower, "_take_finished", fail_once)
    follower.start()
    await until(lambda: follower.problem is None)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await producer.send_and_wait(topic, b"{}", key=b"k")
        await until(lambda: follower.problem is not None and "a bug" in follower.problem)
        await until(lambda: follower.problem is None)
        job_id = uuid4()
        with follower.watch(job_id) as watch:
            await until(lambda: store.asked >= 2)  # the look-up, too, goes on after a bug
            value = job_finished(job_id=job_id).model_dump_json().encode()
            await producer.send_and_wait(topic, value, key=str(job_id).encode())
            await until(watch.finished.done)
    await follower.stop()


class Rows:
    """A store that has the first outcome of every job, once it is let."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    async def finished(self, job_ids: Sequence[UUID]) -> list[Any]:
        return [row for row in self.found if row.job_id in job_ids]


async def test_who_comes_between_two_outcomes_of_a_job_is_told_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.follower.LOOK_UP_EVERY_S", 0.01)
    monkeypatch.setattr("ingress.follower.LOOK_UP_AFTER_S", 1e12)  # it is looked up because there are two
    rows, job_id = Rows(), uuid4()
    follower = Follower(NOWHERE, progressed="job-progressed", finished="job-finished", store=rows)  # type: ignore[arg-type]
    follower.start()
    first = job_finished(job_id=job_id)
    key = str(job_id).encode()
    with follower.watch(job_id) as early:
        follower._take_finished(key, first.model_dump_json().encode())
        assert early.finished.done()
    with follower.watch(job_id) as between:
        follower._take_finished(key, job_finished(job_id=job_id, code="cancelled").model_dump_json().encode())
        assert not between.finished.done()
        rows.found = [replace(ROW, job_id=job_id, result=first.result)]
        await until(between.finished.done)
    await follower.stop()
    assert between.finished.result().error is None
    assert between.finished.result().result == early.finished.result().result == first.result


@pytest.mark.parametrize("kind", ["chat", "search"])
async def test_who_comes_late_to_a_replica_that_is_younger_than_the_job_is_told_what_its_row_says(
    monkeypatch: pytest.MonkeyPatch, kind: JobKind
) -> None:
    """The first outcome may have been told before the replica was there; of a search nothing is ever stored."""
    monkeypatch.setattr("ingress.follower.LOOK_UP_EVERY_S", 0.01)
    monkeypatch.setattr("ingress.follower.LOOK_UP_AFTER_S", 1e12)
    rows, old = Rows(), job(kind=kind, accepted_at=datetime.now(UTC) - timedelta(minutes=5))
    follower = Follower(NOWHERE, progressed="job-progressed", finished="job-finished", store=rows)  # type: ignore[arg-type]
    follower.start()
    follower._begin()
    first, second = job_finished(job=old), job_finished(job=old, code="cancelled")
    key = str(old.job_id).encode()
    with follower.watch(old.job_id, may_have_ended=True) as late, follower.watch(old.job_id) as publisher:
        follower._take_finished(key, second.model_dump_json().encode())
        assert publisher.finished.done()  # it was there before the job
        assert late.finished.done() is (kind == "search")
        if kind == "chat":
            rows.found = [replace(ROW, job_id=old.job_id, result=first.result)]  # at last the sink has come to it
            await until(late.finished.done)
            assert late.finished.result().result == first.result
    new = job(accepted_at=datetime.now(UTC) + timedelta(minutes=5))
    with follower.watch(new.job_id, may_have_ended=True) as listener:
        follower._take_finished(str(new.job_id).encode(), job_finished(job=new).model_dump_json().encode())
        assert listener.finished.done()  # nothing of it can have been missed
    await follower.stop()


async def test_a_row_that_cannot_be_read_as_a_stream_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.follower.LOOK_UP_EVERY_S", 0.01)
    monkeypatch.setattr("ingress.follower.LOOK_UP_AFTER_S", 0)
    rows, jobs = Rows(), (uuid4(), uuid4())
    rows.found = [replace(ROW, job_id=jobs[0], stream={"of": "another version"}), replace(ROW, job_id=jobs[1])]
    follower = Follower(NOWHERE, progressed="job-progressed", finished="job-finished", store=rows)  # type: ignore[arg-type]
    follower.start()
    with follower.watch(jobs[0]) as odd, follower.watch(jobs[1]) as other:
        await until(lambda: odd.finished.done() and other.finished.done())
    await follower.stop()


async def test_how_many_outcomes_are_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.follower.MAX_ENDED", 3)
    follower = Follower(NOWHERE, progressed="job-progressed", finished="job-finished", store=Rows())  # type: ignore[arg-type]
    for n in range(9):
        follower._take_finished(b"%d" % n, b"{}")
    assert list(follower._ended) == [b"6", b"7", b"8"]
