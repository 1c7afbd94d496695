"""When a stage stops for its dead letters, what does not count, and how it goes on."""

import asyncio
import logging
from time import monotonic
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.structs import ConsumerRecord

from processors.stage import DeadLetter, Emit
from schemas.envelope import Attributes, Envelope
from schemas.topics import Catalog
from streams.bad_luck import MAX_IN_A_ROW, RECENT, BadLuck
from streams.batch import Batch
from streams.cancellations import Cancellations
from streams.decode import Undecodable
from streams.encode import Encoder
from streams.lane import Lane
from streams.ledger import Ledger
from streams.quarantine import Quarantine
from streams.serve import StageServer
from streams.worker import Worker
from tests.factories import NOW, completion_requested, job_finished
from tests.waiting import until

CODE = "provider-http-401"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def stopped(clock: Clock | None = None, **options: Any) -> BadLuck:
    luck = BadLuck("s", clock=clock or Clock(), **options)
    for _ in range(MAX_IN_A_ROW):
        luck.bad(CODE)
    assert luck.stopped
    return luck


def test_twenty_in_a_row_stop_it_and_nineteen_do_not() -> None:
    luck = BadLuck("s")
    for _ in range(3):
        for _ in range(MAX_IN_A_ROW - 1):
            luck.bad(CODE)
        luck.good()
    assert not luck.stopped
    assert luck.problem is None
    for _ in range(MAX_IN_A_ROW):
        luck.bad(CODE)
    assert luck.stopped
    assert luck.problem is not None
    assert f"s has stopped taking: {MAX_IN_A_ROW} events in a row" in luck.problem
    assert f"assistant dlq list --code {CODE}" in luck.problem


def test_more_than_half_of_the_last_hundred_stop_it_once_there_are_a_hundred() -> None:
    luck = BadLuck("s")
    for _ in range(RECENT // 2 - 1):
        luck.bad(CODE)
        luck.good()
    luck.bad(CODE)
    assert not luck.stopped  # 50 of 99
    luck.good()
    assert not luck.stopped  # half of 100 is not more than half
    luck.bad(CODE)  # in the place of a bad one
    assert not luck.stopped
    luck.bad(CODE)  # in the place of a good one
    assert luck.stopped
    assert luck.problem is not None
    assert "51 of its last 100" in luck.problem


def test_what_is_long_past_is_forgotten() -> None:
    luck = BadLuck("s")
    for _ in range(10 * RECENT):  # never more than 19 of the last 100
        for n in range(5):
            luck.bad(CODE) if n == 0 else luck.good()
    assert not luck.stopped


@pytest.mark.parametrize(
    "code",
    [
        "unknown-user", "user-disabled", "empty-completion", "output-too-large", "provider-http-400",
        "provider-http-404", "provider-http-413", "provider-http-422", "images-unsupported", "no-payload-store",
        "postgres-unavailable",
    ],
)  # fmt: skip
def test_what_somebodys_request_brings_about_stops_nothing_and_hides_nothing(code: str) -> None:
    luck = BadLuck("s")
    for _ in range(10 * RECENT):
        luck.bad(code)
    assert not luck.stopped
    for _ in range(MAX_IN_A_ROW):
        luck.bad(CODE)
        luck.bad(code)
    assert luck.stopped


@pytest.mark.parametrize(
    "code",
    ["provider-http-401", "provider-http-403", "provider-invalid-reply", "unexpected-error"],
)
def test_what_is_wrong_whatever_is_asked_counts(code: str) -> None:
    luck = BadLuck("s", at_entry=True)
    for _ in range(MAX_IN_A_ROW):
        luck.bad(code)
    assert luck.stopped


def test_records_that_are_no_events_count_everywhere_but_at_the_public_entry() -> None:
    entry, inside = BadLuck("s", at_entry=True), BadLuck("s")
    for _ in range(10 * RECENT):
        entry.bad("invalid-event")
        inside.bad("invalid-event")
    assert not entry.stopped
    assert inside.stopped


def test_after_the_cool_down_one_is_let_through_and_decides(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.WARNING):
        luck = stopped(clock, cool_down_s=30)
        assert not luck.may_begin()
        clock.now += 29.9
        assert not luck.may_begin()
        for _ in range(3):  # each of them fails
            clock.now += 30.0
            assert luck.may_begin()
            assert not luck.may_begin()  # one
            luck.bad(CODE)
            luck.tried()
            assert not luck.may_begin()
        clock.now += 30.0
        assert luck.may_begin()
        luck.good()
        luck.tried()
    assert not luck.stopped
    assert all(luck.may_begin() for _ in range(5))
    for _ in range(MAX_IN_A_ROW - 1):  # it begins anew
        luck.bad(CODE)
    assert not luck.stopped
    told = [record.levelname for record in caplog.records if "s " in record.message]
    assert told == ["CRITICAL", "WARNING"]  # once each


def test_one_that_says_nothing_is_followed_by_the_next_at_once() -> None:
    clock = Clock()
    luck = stopped(clock, cool_down_s=30)
    clock.now += 30
    for _ in range(3):
        assert luck.may_begin()
        luck.bad("provider-http-400")
        luck.tried()
    assert luck.stopped


def test_what_was_in_hand_when_it_stopped_neither_resumes_nor_delays_it() -> None:
    clock = Clock()
    luck = stopped(clock, cool_down_s=30)
    luck.good()
    assert luck.stopped
    clock.now += 30
    luck.bad(CODE)
    assert luck.may_begin()


# --- in the server: what is good, bad, or neither ---

RECORD = ConsumerRecord("t", 0, 0, 0, 0, b"k", b"v", None, 1, 1, [])


def server(luck: BadLuck) -> StageServer:
    app = SimpleNamespace(lanes={"t": SimpleNamespace(luck=luck)})
    return StageServer(cast(Any, app), Encoder(Catalog.load()), max_retries=0, cancellations=Cancellations({}))


def conclude(found: StageServer, result: Any) -> None:
    event = completion_requested()
    if isinstance(result, str):
        result = DeadLetter(result, "it failed")
    found._records(RECORD, Envelope(Attributes("1", "/t", "t"), event), result, "s", NOW)


def test_dead_letters_count_with_and_without_a_job() -> None:
    luck = BadLuck("s")
    found = server(luck)
    for n in range(MAX_IN_A_ROW):
        if n % 2:
            conclude(found, CODE)
        else:
            found._undecodable(RECORD, Undecodable("invalid-event", "r", None, None), "s", NOW)
    assert luck.stopped


@pytest.mark.parametrize(("code", "resumes"), [(None, True), ("timeout", False), ("expired", False)])
def test_only_an_event_that_worked_resumes(code: str | None, resumes: bool) -> None:
    clock = Clock()
    luck = stopped(clock)
    clock.now += 30
    assert luck.may_begin()
    conclude(server(luck), Emit((job_finished(code=code),)))
    assert luck.stopped is not resumes


# --- in the lane: what is begun ---


def lane(luck: BadLuck, *, limit: int = 100) -> Lane:
    app = SimpleNamespace(
        fail=lambda what, error: pytest.fail(f"{what}: {error!r}"), quarantine=Quarantine()
    )  # fmt: skip
    return Lane(cast(Any, app), "s", limit, luck)


def batch(of: Lane, count: int) -> Batch:
    records = [ConsumerRecord("t", 0, n, 0, 0, b"k", b"v", None, 1, 1, []) for n in range(count)]
    ledger = Ledger(records[0])
    return Batch(of, ledger, ledger.deliver(records))


async def test_what_waits_when_the_stage_stops_is_not_begun_and_goes_on_when_it_resumes() -> None:
    clock = Clock()
    luck = BadLuck("s", clock=clock)
    found, begun = lane(luck, limit=1), list[int]()
    works = False

    async def handle(record: ConsumerRecord, ledger: Ledger) -> None:
        begun.append(record.offset)
        luck.good() if works else luck.bad(CODE)

    assert not found.is_full
    found.run_at_once(batch(found, 50), handle)
    await until(lambda: luck.stopped)
    await asyncio.sleep(0)
    assert begun == list(range(MAX_IN_A_ROW))
    assert found.is_full
    assert not found.is_busy  # so that a drain does not wait for what is held
    clock.now += 30
    await until(lambda: len(begun) == MAX_IN_A_ROW + 1)  # one is tried, and fails
    works = True
    clock.now += 30
    await until(lambda: found.pending == 0)
    assert begun == list(range(50))
    assert not found.is_full


async def test_an_in_order_stage_holds_in_the_same_way() -> None:
    clock = Clock()
    luck = BadLuck("s", clock=clock)
    found, begun = lane(luck), list[int]()

    def handle(batch: Batch, index: int) -> list[Any]:
        begun.append(index)
        luck.bad(CODE)
        return []

    found.run_in_order(batch(found, 50), handle)
    await until(lambda: luck.stopped)
    assert begun == list(range(MAX_IN_A_ROW))
    clock.now += 30
    await until(lambda: len(begun) == MAX_IN_A_ROW + 1)
    await found.cut()


async def test_what_is_held_is_let_go_with_its_partition() -> None:
    luck = stopped()
    found = lane(luck)
    at_once, in_order = batch(found, 3), batch(found, 3)

    async def never(record: ConsumerRecord, ledger: Ledger) -> None:
        pytest.fail("it was begun")

    found.run_at_once(at_once, never)
    found.run_in_order(in_order, lambda batch, index: pytest.fail("it was begun"))
    at_once.ledger.live = in_order.ledger.live = False
    await until(lambda: found.pending == 0)


def test_a_lane_that_stopped_is_polled_only_when_one_is_to_be_tried() -> None:
    clock = Clock()
    found = lane(stopped(clock))
    assert found.is_full
    clock.now += 30
    assert not found.is_full
    assert found.luck.may_begin()
    assert found.is_full


@pytest.mark.parametrize(("luck", "is_stalled"), [(BadLuck("s"), True), (stopped(), False)])
def test_the_watchdog_leaves_a_stage_alone_that_stopped_on_purpose(luck: BadLuck, is_stalled: bool) -> None:
    app = SimpleNamespace(
        rebalancing=False, lanes={"t": lane(luck)}, consumer=SimpleNamespace(delivered_at=monotonic() - 100)
    )  # fmt: skip
    worker = SimpleNamespace(
        _heartbeat=SimpleNamespace(
            deliverable={"s": 7}, asked_at=monotonic(), looked_at=monotonic(), answered_at=monotonic()
        ),
        _apps=[app], _stalled_since=monotonic() - 50,
    )  # fmt: skip
    assert (Worker._stalled_for_s(cast(Any, worker)) > 40) is is_stalled
