"""What a lane does with work that outlasts its partition: adopted, remembered, or left to the next owner."""

import asyncio
from typing import Any

import pytest

from streams.batch import Batch
from streams.ledger import Ledger
from tests.streams.lane_bench import Bench, FakeRecord
from tests.waiting import until


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


async def alone(bench: Bench) -> bool:
    """Whether a suspect gets to be alone while the lane is at work."""
    try:
        async with asyncio.timeout(0.05), bench.app.quarantine.alone(wanted=lambda: True):
            return True
    except TimeoutError:
        return False
