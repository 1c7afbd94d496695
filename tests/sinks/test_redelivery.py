"""A stored webhook sent again: the same id and body, attempts counted on, never two at a time."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from schemas.envelope import Attributes, Envelope
from sinks.postgres import OutcomeSink
from sinks.webhook_store import WebhookStore
from sinks.webhooks import SCHEDULE_S
from tests.factories import job, job_finished
from tests.sinks.conftest import Bench, Receiver

pytestmark = pytest.mark.integration
LONG_AGO, LATER = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


async def test_a_delivered_one_is_sent_again_as_it_was(bench: Bench, receiver: tuple[Receiver, str]) -> None:
    there, url = receiver
    job_id, store = await bench.due(url), WebhookStore(bench.pool)
    await bench.send()
    assert await bench.send() == 0
    for _ in range(2):
        assert await store.send_again(job_id)
        assert await store.send_again(job_id)  # once more is the same
        assert await bench.send() == 1
        assert await bench.send() == 0
    assert len(there.calls) == 3
    assert len({(headers["webhook-id"], body) for headers, body in there.calls}) == 1
    assert [attempt["attempt"] for attempt in await store.attempts(job_id)] == [1, 2, 3]


async def test_one_that_was_given_up_is_sent_again_and_not_scheduled_anew(
    bench: Bench, receiver: tuple[Receiver, str]
) -> None:
    there, url = receiver
    there.answers = [web.Response(status=500)]
    job_id, store = await bench.due(url), WebhookStore(bench.pool)
    for wait in SCHEDULE_S:
        bench.clock.now += timedelta(seconds=wait * 1.2)
        await bench.send()
    bench.clock.now += timedelta(days=3)
    assert await bench.send() == 0
    assert await store.send_again(job_id)
    assert await bench.send() == 1
    bench.clock.now += timedelta(days=3)
    assert await bench.send() == 0
    there.answers = [web.Response()]
    assert await store.send_again(job_id)
    assert await bench.send() == 1
    attempts = await store.attempts(job_id)
    assert [attempt["attempt"] for attempt in attempts] == list(range(1, len(SCHEDULE_S) + 3))
    assert attempts[-1]["status_code"] == 200


async def test_one_under_lease_is_left_alone_and_one_whose_lease_ran_out_is_not(
    bench: Bench, receiver: tuple[Receiver, str]
) -> None:
    there, url = receiver
    job_id, store = await bench.due(url), WebhookStore(bench.pool)
    (leased,) = await store.lease(1, now=datetime.now(UTC) + timedelta(seconds=1), per_host=4, busy={})
    assert await store.send_again(job_id)
    assert await bench.send() == 0  # that attempt is the new one
    assert await store.record(leased, at=bench.clock(), status_code=200, error=None, state="delivered", next_at=None)
    assert await bench.send() == 0

    await store.send_again(job_id)
    past = datetime.now(UTC) - timedelta(seconds=90)
    async with bench.pool.connection() as connection:
        await connection.execute("UPDATE webhooks SET due_at = $1", past)
    (late,) = await store.lease(1, now=past, per_host=4, busy={})  # its process hangs, and the lease is over
    assert await store.send_again(job_id)
    assert not await store.record(late, at=bench.clock(), status_code=500, error="x", state="given-up", next_at=None)
    assert await bench.send() == 1
    assert len(there.calls) == 1


async def test_a_job_without_a_webhook_has_none_to_send(bench: Bench) -> None:
    assert not await WebhookStore(bench.pool).send_again(uuid4())


async def test_all_of_a_time_are_sent_again_page_by_page(bench: Bench, receiver: tuple[Receiver, str]) -> None:
    there, url = receiver
    store = WebhookStore(bench.pool)
    for user_id, count in (("alice", 7), ("bob", 2)):
        finished = [job_finished(job=job(callback_url=url, user_id=user_id)) for _ in range(count)]
        await OutcomeSink(bench.pool).write([Envelope(Attributes("e", "/s", "t"), each) for each in finished])
    bench.clock.now = datetime.now(UTC) + timedelta(seconds=1)

    async def all_sent(count: int) -> None:
        while await bench.send():
            pass
        assert len(there.calls) == count

    await all_sent(9)
    seen: list[UUID] = []
    after = None
    while page := await store.send_all_again(
        begin=LONG_AGO, end=LATER, user_id="alice", state="delivered", limit=3, after=after
    ):
        assert len(page) <= 3
        seen += [job_id for job_id, _, _ in page]
        after = (page[-1][2], page[-1][1])
    assert len(set(seen)) == len(seen) == 7
    await all_sent(16)
    assert {len(await store.attempts(job_id)) for job_id in seen} == {2}
    everybodys = await store.send_all_again(
        begin=LONG_AGO, end=LATER, user_id=None, state=None, limit=1000, after=None
    )  # fmt: skip
    assert len(everybodys) == 9
    for begin, end in ((LONG_AGO, LONG_AGO + timedelta(days=1)), (LATER, LATER)):
        assert not await store.send_all_again(
            begin=begin, end=end, user_id=None, state=None, limit=9, after=None
        )  # fmt: skip
