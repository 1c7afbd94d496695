"""Putting off: the same event with the same id each time, kept as a row, or held where there is none."""

import asyncio
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from processors.errors import PermanentError, RetryableError
from processors.ports import DueEvent
from processors.stage import Later
from schemas.envelope import Attributes, Envelope
from schemas.events import Attempt, CompletionRequested
from schemas.topics import Catalog
from streams.bad_luck import BadLuck
from streams.batch import Batch
from streams.encode import Encoder
from streams.lane import Lane
from streams.later import Postponer, as_released, put_off
from streams.ledger import Ledger
from streams.quarantine import Quarantine
from tests.factories import NOW, completion_requested, job
from tests.waiting import until

TRIES = (Attempt(provider="openai", code="provider-http-503", ms=3),)
ENCODER = Encoder(Catalog.load(prefix="p."))


def envelope(event: CompletionRequested | None = None, event_id: str = "e-1") -> Envelope[CompletionRequested]:
    return Envelope(Attributes(event_id, "/test", "completion-requested"), event or completion_requested())


def due_event(of: Envelope[CompletionRequested] | None = None, *, wait_s: float = 30) -> DueEvent:
    later = Later("provider-http-503", "busy", wait_s, TRIES)
    return put_off(of or envelope(), later, ENCODER, stage="generate_completion", now=NOW)


def record(offset: int = 7) -> ConsumerRecord:
    return ConsumerRecord("p.completion-requested-openai", 0, offset, 1, 0, b"k", b"v", None, 0, 0, ())


class FakeApp:
    """Notes what would have ended the process."""

    def __init__(self) -> None:
        self.failures: list[Any] = []
        self.quarantine = Quarantine()

    def fail(self, what: object, error: BaseException) -> None:
        self.failures.append(error)


class FakeWriter:
    """Raises one of `errors` after the other, then keeps what it is given."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.kept = list(errors), list[DueEvent]()

    async def add(self, event: DueEvent) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.kept.append(event)


class Scene:
    """One record in the hands of a lane, whose handler puts it off; time passes in sleeps."""

    def __init__(self, writer: FakeWriter | None, *, sleeps_for_ever: bool = False) -> None:
        self.app, self.waits, self.taken, self.now = FakeApp(), list[float](), list[bool](), NOW
        self.lane = Lane(self.app, "generate_completion", 4, BadLuck("s"))  # type: ignore[arg-type]  # a fake
        self.ledger = Ledger(record())
        self.sleeps_for_ever = sleeps_for_ever
        self.postponer = Postponer(writer, now=self.clock, sleep=self.sleep, random=Random(1))

    def clock(self) -> datetime:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        if self.sleeps_for_ever:
            await asyncio.Event().wait()
        self.now += timedelta(seconds=seconds)

    async def handle(self, taken: ConsumerRecord, ledger: Ledger) -> None:
        self.taken.append(await self.postponer.take(due_event(), taken, self.lane))

    def begin(self, handle: Any = None) -> None:
        (fresh,) = self.ledger.deliver([record()])
        self.lane.run_at_once(Batch(self.lane, self.ledger, [fresh]), handle or self.handle)

    async def settle(self) -> None:
        await until(lambda: not self.lane.pending, within_s=5)

    @property
    def is_finished(self) -> bool:
        return int(self.ledger.committable().offset) == 8


def test_what_is_put_off_is_the_same_event_with_its_tries_and_an_id_of_its_own() -> None:
    first = envelope()
    due = due_event(first)
    assert due.due_id == due_event(first).due_id  # as after a redelivery: one row
    assert due.due_at == NOW + timedelta(seconds=30)
    assert (due.record.topic, due.record.key) == (
        "p.completion-requested-openai",
        str(first.payload.job.job_id).encode(),
    )
    again = as_released(due, first)
    assert again.payload == first.payload.model_copy(update={"retry": 1, "attempts": TRIES})
    assert again.attributes.event_id == due.due_id
    assert again.attributes.caused_by == "e-1"
    many = Later("provider-http-503", "busy", 30, TRIES * 50)
    next_one = put_off(again, many, ENCODER, stage="generate_completion", now=NOW)
    assert len(next_one.attempts) == 10  # told on the way
    assert len(as_released(next_one, again).payload.attempts) == 50
    assert as_released(next_one, again).payload.retry == 2
    assert len({"e-1", due.due_id, next_one.due_id}) == 3


async def test_an_input_is_finished_once_its_row_is_committed() -> None:
    writer = FakeWriter()
    scene = Scene(writer)
    scene.begin()
    await scene.settle()
    assert (scene.taken, scene.waits, len(writer.kept)) == ([True], [], 1)
    assert scene.is_finished


async def test_a_row_that_cannot_be_written_is_tried_again_until_it_can() -> None:
    writer = FakeWriter(*[RetryableError("postgres-unavailable", "away")] * 5, TimeoutError())
    scene = Scene(writer)
    scene.begin()
    await scene.settle()
    assert (scene.taken, len(writer.kept)) == ([True], 1)
    assert len(scene.waits) == 6
    for wait, most in zip(scene.waits, (0.2, 0.4, 0.8, 1.6, 3.2, 5.0), strict=True):
        assert most / 2 <= wait <= most


@pytest.mark.parametrize("error", [RetryableError("postgres-unavailable", "away"), PermanentError("row-refused", "no")])
async def test_what_is_due_and_has_no_row_is_to_be_run_in_place(error: Exception) -> None:
    writer = FakeWriter(*[error] * 1000)
    scene = Scene(writer)
    scene.begin()
    await scene.settle()
    assert (scene.taken, writer.kept, scene.app.failures) == ([False], [], [])
    assert sum(scene.waits) == pytest.approx(30)
    assert max(scene.waits) <= 5


async def test_without_a_database_it_is_held_in_place_until_it_is_due() -> None:
    scene = Scene(None)
    scene.begin()
    await scene.settle()
    assert (scene.taken, scene.waits) == ([False], [30])


@pytest.mark.parametrize("writer", [None, FakeWriter(*[RetryableError("postgres-unavailable", "away")] * 9)])
async def test_a_drain_gives_back_what_is_held_unfinished(writer: FakeWriter | None) -> None:
    scene = Scene(writer, sleeps_for_ever=True)
    scene.begin()
    await until(lambda: scene.waits)
    assert scene.lane.is_busy
    scene.ledger.live = False
    scene.lane.give_back_held()
    await scene.settle()
    assert not scene.lane.is_busy
    assert (scene.taken, scene.app.failures, scene.is_finished) == ([], [], False)


async def test_what_would_be_held_when_a_drain_has_begun_is_given_back() -> None:
    scene, working = Scene(None, sleeps_for_ever=True), asyncio.Event()

    async def works_first(taken: ConsumerRecord, ledger: Ledger) -> None:
        await working.wait()
        await scene.handle(taken, ledger)

    scene.begin(works_first)
    await asyncio.sleep(0)
    scene.ledger.live = False
    scene.lane.give_back_held()
    working.set()
    await scene.settle()
    assert (scene.taken, scene.is_finished) == ([], False)


async def test_what_was_adopted_after_a_rebalance_is_held_for_its_new_ledger() -> None:
    """Cancelled, it would stay open in the new ledger for ever."""
    scene, working = Scene(None), asyncio.Event()

    async def works_first(taken: ConsumerRecord, ledger: Ledger) -> None:
        await working.wait()
        await scene.handle(taken, ledger)

    scene.begin(works_first)
    await asyncio.sleep(0)
    scene.ledger.live = False
    scene.ledger = Ledger(record())
    scene.begin(works_first)  # delivered again: adopted
    working.set()
    await scene.settle()
    assert (scene.taken, scene.is_finished) == ([False], True)


def test_a_job_is_named_in_what_is_put_off() -> None:
    of = job(run=3)
    due = due_event(envelope(completion_requested(job=of)))
    assert (due.job_id, due.run, due.stage, due.code) == (of.job_id, 3, "generate_completion", "provider-http-503")
