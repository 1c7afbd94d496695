"""Workers whose clocks are ten minutes off: what is due is so by Postgres's clock, and nobody takes another's lease."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest
from aiohttp import web

from processors.ports import DueEvent
from sinks.due_store import DueStore
from sinks.pool import Pool
from sinks.webhook_store import WebhookStore
from sinks.webhooks import WebhookSender
from streams.releaser import Releaser
from tests.sinks.test_due_store import due
from tests.streams.test_releaser import FakeApp

pytestmark = pytest.mark.integration

OFF_BY = timedelta(minutes=10)
NEAR_S = 120.0  # however busy the machine is: it is told from ten minutes


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=4)
    yield pool
    await pool.close()


@pytest.fixture(params=[OFF_BY, -OFF_BY], ids=["ahead", "behind"])
def off_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """How far the clock of this process is from Postgres's, as whatever asks it here is told."""
    by: timedelta = request.param

    class Off(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Self:
            return super().now(tz) + by

    for module in ("sinks.due_store", "sinks.webhooks", "streams.releaser"):
        monkeypatch.setattr(f"{module}.datetime", Off)
    return by


def put_off(off_by: timedelta, *, wait_s: float) -> DueEvent:
    """As a worker with that clock puts an event off."""
    return due(due_at=datetime.now(UTC) + off_by + timedelta(seconds=wait_s))


def left_s(at: datetime | None) -> float:
    assert at is not None
    return (at - datetime.now(UTC)).total_seconds()


async def test_an_event_waits_as_long_as_it_was_put_off_for(pool: Pool, off_by: timedelta) -> None:
    app, event = FakeApp(), put_off(off_by, wait_s=300)
    store = DueStore(pool)
    await store.add(event)
    assert left_s(await store.next_due_at()) == pytest.approx(300, abs=NEAR_S)
    releaser = Releaser(app, store)  # type: ignore[arg-type]  # a fake
    assert await releaser.release_due() == 0
    assert await releaser._until_next_s() == 1.0  # as it looks for others' events
    soon = put_off(off_by, wait_s=-1)
    await store.add(soon)
    assert await releaser.release_due() == 1
    assert list(app.published) == [soon.due_id]


async def test_a_lease_is_somebodys_for_as_long_as_it_lasts(pool: Pool, off_by: timedelta) -> None:
    store = DueStore(pool)
    await store.add(put_off(off_by, wait_s=-1))
    assert len((await store.lease(9)).records) == 1
    assert not (await DueStore(pool).lease(9)).records


async def test_a_clock_that_is_nearly_right_is_believed(pool: Pool) -> None:
    """So that what is told of a wait is what is stored."""
    store, event = DueStore(pool), put_off(timedelta(milliseconds=200), wait_s=30)
    await store.add(event)
    assert await store.next_due_at() == event.due_at


async def test_a_webhook_is_sent_at_once_and_again_in_its_time(bench, receiver, off_by: timedelta) -> None:
    received, url = receiver
    received.answers = [web.Response(status=500)]
    job_id = await bench.due(url)
    sender = WebhookSender(bench.pool, bench.secrets, allow_private=True, timeout_s=2)
    assert await sender.send_due() == 1
    assert not await WebhookStore(bench.pool).lease(9, per_host=4, busy={})  # it has it
    await sender.settle()
    (attempt,) = await WebhookStore(bench.pool).attempts(job_id)
    signed_at = int(received.calls[0][0]["webhook-timestamp"])
    assert signed_at == pytest.approx(datetime.now(UTC).timestamp(), abs=NEAR_S)  # receivers compare it with their own
    assert left_s(attempt["next_at"]) == pytest.approx(5, abs=NEAR_S)
    await sender.close()
