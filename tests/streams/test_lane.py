"""What a lane does with work that outlasts its partition: adopted, remembered, or left to the next owner."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from faust.types import TP

from streams.bad_luck import BadLuck
from streams.batch import Batch
from streams.commit_metadata import Told, decode
from streams.few_at_first import FEW
from streams.lane import Lane
from streams.ledger import Ledger
from streams.quarantine import Quarantine
from tests.waiting import until

TOPIC = "completion-requested-openai"


@dataclass(frozen=True)
class FakeRecord:
    offset: int
    topic: str = TOPIC
    partition: int = 0
    timestamp: int = 1_700_000_000_000


@dataclass
class FakeConsumer:
    """Stands for the `Consumer`: a commit is answered at once, or when it is told to. `told`: how often."""

    answers: asyncio.Event = field(default_factory=asyncio.Event)
    told: int = 0
    ledgers: list[Ledger] = field(default_factory=list)

    async def commit_begun(self, tps: list[TP]) -> bool:
        self.told += 1
        await self.answers.wait()
        return True

    async def acquit(self) -> None:
        for ledger in self.ledgers:
            ledger.acquit()


@dataclass
class FakeApp:
    """Stands for the `StreamApp`; `failed`: what ends the process."""

    failed: list[BaseException] = field(default_factory=list)
    quarantine: Quarantine = field(default_factory=Quarantine)
    consumer: FakeConsumer = field(default_factory=FakeConsumer)

    def fail(self, what: object, error: BaseException) -> None:
        self.failed.append(error)


class Bench:
    """A lane whose handler waits until it is told to go on. `begun`: the offsets that it was called with."""

    def __init__(self, limit: int = 10, *, is_apart: bool = False) -> None:
        self.app = FakeApp()
        app: Any = self.app  # as much of one as a lane needs
        self.lane = Lane(app, "generate_completion-openai", limit, BadLuck("s"), is_apart=is_apart)
        self.begun: list[int] = []
        self.asked: list[list[int]] = []
        self.go_on = asyncio.Event()
        self.app.consumer.answers.set()

    async def handle(self, record: Any, ledger: Ledger) -> None:
        self.begun.append(record.offset)
        await self.go_on.wait()

    def deliver(
        self, *offsets: int, died: Collection[int] = (), crashes: Mapping[int, int] = {}, partition: int = 0,
        ended: Collection[int] | None = None, ahead: Collection[int] = (), newest: Collection[int] = (),
    ) -> Ledger:  # fmt: skip
        """As the consumer does after an assignment: a ledger anew.

        `died`: in hand when a process died; `crashes`: how often; `ended`: what is found when that is looked up;
        `ahead`: cancelled, say; `newest`: had just begun when it died.
        """
        records = [FakeRecord(offset, partition=partition) for offset in offsets]
        ledger = Ledger(records[0], end=0 if ended is None else max(offsets) + 1)
        ledger._newest_told |= set(newest)
        ledger._crashes |= {**dict.fromkeys(died, 1), **crashes}
        batch = Batch(self.lane, ledger, ledger.deliver(records))
        self.app.consumer.ledgers.append(ledger)

        async def look_up(asked: Batch) -> set[int]:
            self.asked.append([record.offset for record in asked.records])
            return {record.offset for record in asked.records} & set(ended or ())

        self.lane.run_at_once(batch, self.handle, look_up=look_up, ahead=lambda record: record.offset in ahead)
        return ledger


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_work_that_runs_since_before_a_rebalance_is_adopted(bench: Bench) -> None:
    before = bench.deliver(0, 1)
    await until(lambda: len(bench.begun) == 2)
    before.live = False
    after = bench.deliver(0, 1, 2)
    await until(lambda: len(bench.begun) == 3)
    assert bench.begun == [0, 1, 2]
    assert after.committable().offset == 0  # nothing is finished by being adopted
    bench.go_on.set()
    await until(lambda: not bench.lane.is_busy)
    assert bench.begun == [0, 1, 2]
    assert after.committable().offset == 3
    assert before.committable().offset == 0  # nothing is committed for whom it no longer belongs to
    assert bench.lane.pending == 0


async def test_work_that_ended_while_its_partition_was_away_is_not_done_again(bench: Bench) -> None:
    before = bench.deliver(0, 1)
    await until(lambda: len(bench.begun) == 2)
    before.live = False
    bench.go_on.set()
    await until(lambda: not bench.lane.is_busy)
    after = bench.deliver(0, 1, 2)
    await until(lambda: after.committable().offset == 3)
    assert bench.begun == [0, 1, 2]
    assert bench.lane.pending == 0


async def test_another_record_at_the_same_offset_is_other_work(bench: Bench) -> None:
    """A topic that was made anew begins at offset 0 again."""
    before = bench.deliver(0)
    await until(lambda: bench.begun == [0])
    before.live = False
    bench.go_on.set()
    await until(lambda: not bench.lane.pending)
    record = FakeRecord(0, timestamp=1_800_000_000_000)
    after = Ledger(record)
    bench.lane.run_at_once(Batch(bench.lane, after, after.deliver([record])), bench.handle)
    await until(lambda: after.committable().offset == 1)
    assert bench.begun == [0, 0]


async def test_what_has_not_begun_when_its_partition_goes_is_left_to_the_next_owner() -> None:
    bench = Bench(limit=1)
    ledger = bench.deliver(0, 1, 2)
    await until(lambda: bench.begun == [0])
    ledger.live = False
    bench.go_on.set()
    await until(lambda: bench.lane.pending == 0)
    assert bench.begun == [0]
    assert ledger.committable().offset == 1


async def test_a_handler_that_raises_finishes_nothing_and_ends_the_process(bench: Bench) -> None:
    async def broken(record: Any, ledger: Ledger) -> None:
        raise OSError("the disk is gone")

    bench.handle = broken  # type: ignore[method-assign]  # that is the case
    ledger = bench.deliver(0)
    await until(lambda: bench.app.failed)
    assert ledger.committable().offset == 0
    assert bench.lane.pending == 0


async def test_what_outlasts_the_drain_of_a_stop_is_cut_and_not_finished(bench: Bench) -> None:
    ledger = bench.deliver(0, 1)
    await until(lambda: len(bench.begun) == 2)
    ledger.live = False
    await bench.lane.cut()
    assert not bench.lane.is_busy
    assert bench.lane.pending == 0
    assert bench.app.failed == []
    assert ledger.committable().offset == 0


async def test_records_wait_for_their_place_and_begin_in_order(bench: Bench) -> None:
    places = [0.0, 0.01, 0.0, 0.01, 0.01, 0.0]
    bench.lane.pace = lambda: places.pop(0)
    bench.deliver(0, 1, 2)
    await until(lambda: bench.begun == [0, 1, 2])
    assert places == []
    bench.go_on.set()
    await until(lambda: bench.lane.pending == 0)


async def test_who_waits_for_a_place_does_not_wait_past_the_jobs_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.lane.SWEEP_S", 0.01)
    bench.lane.pace = lambda: 3600.0
    records = [FakeRecord(offset) for offset in range(3)]
    ledger = Ledger(records[0])
    over = {1}
    batch = Batch(bench.lane, ledger, ledger.deliver(records))
    bench.lane.run_at_once(batch, bench.handle, over=lambda record: record.offset in over)
    await until(lambda: bench.begun == [1])
    ledger.live = False  # the partition goes: the others are left to its next owner, and take no place
    bench.go_on.set()
    await until(lambda: bench.lane.pending == 0)
    assert bench.begun == [1]


@pytest.mark.parametrize("is_apart", [True, False])
async def test_what_is_worked_on_elsewhere_for_hours_stands_in_nobodys_way(is_apart: bool) -> None:
    bench = Bench(is_apart=is_apart)
    bench.deliver(0)
    await until(lambda: bench.begun == [0])
    assert await alone(bench) is is_apart  # a suspect of another stage
    ledger = Ledger(FakeRecord(5))
    ledger._crashes[5] = 2  # it was in hand when two processes died
    records: list[Any] = [FakeRecord(5)]
    bench.lane.run_at_once(Batch(bench.lane, ledger, ledger.deliver(records)), bench.handle)
    assert bench.app.quarantine.is_calm
    await asyncio.sleep(0)
    assert bench.app.quarantine.is_calm is is_apart
    if is_apart:
        await until(lambda: bench.begun == [0, 5])  # beside the other one
    await bench.lane.cut()


async def test_those_that_a_process_has_died_with_begin_a_few_at_first_and_are_written_down_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.few_at_first.PROVEN_S", 3600.0)
    bench = Bench(limit=100)
    bench.app.consumer.answers.clear()
    ledger = bench.deliver(*range(60), died=range(50))
    await until(lambda: bench.app.consumer.told == 1)
    assert bench.begun == []  # not before the brokers know
    assert named(ledger) == set(range(FEW))  # another death would count for these, and for no other
    assert told(ledger).newest == set(range(FEW))
    bench.app.consumer.answers.set()
    await until(lambda: len(bench.begun) == FEW)
    assert bench.begun == list(range(FEW))
    bench.go_on.set()  # done, so they are proven: a few more, and so on
    await until(lambda: bench.lane.pending == 0)
    assert sorted(bench.begun) == list(range(60))
    assert bench.app.consumer.told == 4  # 8, 16, 24, 2
    assert ledger.newest == set()


async def test_those_that_live_for_a_while_hold_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.few_at_first.PROVEN_S", 0.01)
    bench = Bench(limit=40)
    bench.deliver(*range(60), died=range(50))
    await until(lambda: len(bench.begun) == 40)  # none of them has ended
    assert bench.app.consumer.told == 3
    await bench.lane.cut()


async def test_the_next_that_died_begin_a_few_at_first_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.few_at_first.PROVEN_S", 3600.0)
    bench = Bench(limit=100)
    bench.go_on.set()
    bench.deliver(*range(60), died=range(60))
    await until(lambda: bench.lane.pending == 0)
    bench.go_on.clear()
    bench.begun.clear()
    bench.deliver(*range(100, 160), died=range(100, 160))
    await until(lambda: len(bench.begun) == FEW)
    await asyncio.sleep(0)
    assert len(bench.begun) == FEW
    await bench.lane.cut()


async def test_what_need_not_wait_passes_those_that_a_process_has_died_with() -> None:
    bench = Bench(limit=1)
    bench.deliver(0, 1, 2, died=[0], ahead=[1])
    await until(lambda: len(bench.begun) == 2)
    assert sorted(bench.begun) == [0, 1]
    await bench.lane.cut()


async def test_those_that_a_process_has_died_with_take_no_place_before_they_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.few_at_first.PROVEN_S", 3600.0)
    bench = Bench(limit=100)
    places: list[int] = []

    def pace() -> float:
        places.append(1)
        return 0.0

    bench.lane.pace = pace
    bench.deliver(*range(20), died=range(20))
    await until(lambda: len(bench.begun) == FEW)
    await asyncio.sleep(0)
    assert len(places) == FEW
    await bench.lane.cut()


async def test_while_a_suspect_is_alone_none_of_those_that_died_is_in_hand() -> None:
    bench = Bench()
    async with bench.app.quarantine.alone(wanted=lambda: True):
        ledger = bench.deliver(0, 1, died=[0, 1])
        for _ in range(5):
            await asyncio.sleep(0)
        assert bench.begun == []
        assert named(ledger) == set()
    await until(lambda: bench.begun == [0, 1])
    await bench.lane.cut()


async def test_suspects_are_handled_one_after_another_those_first_that_had_just_begun() -> None:
    bench = Bench()
    bench.deliver(0, 1, 2, 3, crashes={0: 2, 1: 2, 2: 2}, newest=[2])
    await until(lambda: bench.begun == [2])
    bench.deliver(10, 11, crashes={10: 2, 11: 2}, newest=[11], partition=1)
    for begun in ([2], [2, 11], [2, 11, 10], [2, 11, 10, 0], [2, 11, 10, 0, 1], [2, 11, 10, 0, 1, 3]):
        await until(partial(has_begun, bench, len(begun)))
        assert bench.begun == begun
        bench.go_on.set()
        await asyncio.sleep(0)
        bench.go_on.clear()
    await bench.lane.cut()


async def test_once_who_killed_is_found_the_others_go_on_beside_each_other() -> None:
    bench = Bench()
    ledger = bench.deliver(*range(6), crashes=dict.fromkeys(range(6), 2))
    await until(lambda: bench.begun == [0])  # alone, the others wait for it
    bench.deliver(100, crashes={100: 3}, partition=1)
    bench.go_on.set()
    await until(lambda: bench.lane.pending == 0)
    assert bench.begun[:2] == [0, 100]  # before those that had waited for longer
    assert sorted(bench.begun[2:]) == [1, 2, 3, 4, 5]
    assert not any(ledger.is_suspect(offset) for offset in range(6))
    assert bench.app.consumer.told == 6  # two for each that was alone, then one for the first, one for the others
    assert ledger.committable().offset == 6


async def test_nobody_is_acquitted_before_who_killed_has_its_dead_letter() -> None:
    async def broken(record: Any, ledger: Ledger) -> None:
        raise OSError("the disk is gone")

    bench = Bench()
    bench.handle = broken  # type: ignore[method-assign]  # that is the case
    ledger = bench.deliver(0, 1, crashes={0: 3, 1: 2})
    await until(lambda: bench.app.failed)
    assert ledger.is_suspect(1)
    await bench.lane.cut()


async def test_a_suspect_whose_job_has_ended_is_not_done_again() -> None:
    bench = Bench()
    bench.go_on.set()
    ledger = bench.deliver(0, 1, 2, crashes={0: 2, 1: 2}, ended=[0, 2])
    await until(lambda: bench.lane.pending == 0)
    assert bench.begun == [1]
    assert bench.asked == [[2], [0], [1]]  # those that may kill when they are alone, and not before
    assert ledger.committable().offset == 3


async def test_of_those_in_order_too_the_others_go_on_once_who_killed_is_found() -> None:
    bench = Bench()
    records = [FakeRecord(offset) for offset in range(4)]
    ledger = Ledger(records[0])
    ledger._crashes |= {0: 3, 1: 2, 2: 2}
    bench.app.consumer.ledgers.append(ledger)
    was_alone = []

    def handle(batch: Batch, index: int) -> list[Any]:
        bench.begun.append(batch.records[index].offset)
        was_alone.append(not bench.app.quarantine.is_calm)
        return []

    bench.lane.run_in_order(Batch(bench.lane, ledger, ledger.deliver(records)), handle)
    await until(lambda: bench.lane.pending == 0)
    assert bench.begun == [0, 1, 2, 3]
    assert was_alone == [True, False, False, False]
    assert ledger.committable().offset == 4


async def test_one_in_order_that_is_acquitted_while_it_waits_is_handled_beside_others() -> None:
    bench = Bench()
    records = [FakeRecord(offset) for offset in range(2)]
    ledger = Ledger(records[0])
    ledger._crashes |= {0: 2, 1: 2}
    was_alone = []

    def handle(batch: Batch, index: int) -> list[Any]:
        was_alone.append(not bench.app.quarantine.is_calm)
        return []

    async with bench.app.quarantine.alone(wanted=lambda: True):  # another's, of which the same is suspected
        bench.lane.run_in_order(Batch(bench.lane, ledger, ledger.deliver(records)), handle)
        await asyncio.sleep(0)
        ledger.acquit()
    await until(lambda: bench.lane.pending == 0)
    assert was_alone == [False, False]
    assert ledger.committable().offset == 2


async def test_each_time_a_few_more_begin() -> None:
    bench = Bench(limit=300)
    bench.go_on.set()
    bench.deliver(*range(150), died=range(150))
    await until(lambda: bench.lane.pending == 0)
    assert bench.app.consumer.told == 6  # 8, 16, 24, 32, 40, 30


def has_begun(bench: Bench, count: int) -> bool:
    return len(bench.begun) == count


def named(ledger: Ledger) -> set[int]:
    """For whom another death would count."""
    return {offset for offset, crashes in told(ledger).crashes.items() if crashes == 2}


def told(ledger: Ledger) -> Told:
    """What the next owner would hear."""
    at = ledger.committable()
    return decode(at.metadata, at.offset, at.offset, FakeRecord(0).timestamp)


async def alone(bench: Bench) -> bool:
    """Whether a suspect gets to be alone while the lane is at work."""
    try:
        async with asyncio.timeout(0.05), bench.app.quarantine.alone(wanted=lambda: True):
            return True
    except TimeoutError:
        return False
