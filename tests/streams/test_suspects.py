"""How a lane handles what a process has died with: a few at a time, then alone, until who killed is found."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from streams.batch import Batch
from streams.commit_metadata import Told, decode
from streams.few_at_first import FEW
from streams.ledger import Ledger
from tests.streams.lane_bench import Bench, FakeRecord
from tests.waiting import until


async def test_those_that_a_process_has_died_with_begin_a_few_at_first_and_are_written_down_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.few_at_first.PROVEN_S", 3600.0)
    monkeypatch.setattr("streams.lane.JUST_BEGUN_S", 3600.0)
    bench = Bench(limit=100)
    bench.app.consumer.answers.clear()
    ledger = bench.deliver(*range(60), died=range(50))
    await until(lambda: bench.app.consumer.told == 1)
    assert bench.begun == []  # not before the brokers know
    # Another death would count for these, twice as they have just begun, and for no other.
    assert told(ledger).crashes == {**dict.fromkeys(range(50), 1), **dict.fromkeys(range(FEW), 3)}
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
    assert bench.app.consumer.told == 5  # before each few begin, and when they have not just begun any more
    await bench.lane.cut()


async def test_one_that_lives_through_its_start_is_not_among_those_that_have_just_begun() -> None:
    bench = Bench()
    ledger = bench.deliver(0, 1, died=[0])
    await until(lambda: bench.app.consumer.told == 2)
    assert sorted(bench.begun) == [0, 1]
    assert told(ledger).crashes == {0: 2, 1: 1}
    assert ledger.newest == set()
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
    bench.deliver(0, 1, 2, 3, crashes={0: 2, 1: 2, 2: 3})
    await until(lambda: bench.begun == [2])
    bench.deliver(10, 11, crashes={10: 2, 11: 3}, partition=1)
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
    bench.deliver(100, crashes={100: 4}, partition=1)
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
    ledger = bench.deliver(0, 1, crashes={0: 4, 1: 2})
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


async def test_in_order_too_suspects_that_are_neighbours_are_alone_one_after_the_other() -> None:
    bench = Bench()
    _, was_alone = in_order(bench, {0: 2, 1: 2, 2: 0})
    await until(lambda: bench.lane.pending == 0)
    assert was_alone == [True, True, False]
    assert bench.app.consumer.told == 4  # before each and after it


async def test_of_those_in_order_too_the_others_go_on_once_who_killed_is_found() -> None:
    bench = Bench()
    ledger, was_alone = in_order(bench, {0: 4, 1: 2, 2: 2, 3: 0})
    await until(lambda: bench.lane.pending == 0)
    assert bench.begun == [0, 1, 2, 3]
    assert was_alone == [True, False, False, False]
    assert ledger.committable().offset == 4


async def test_one_in_order_that_is_acquitted_while_it_waits_is_handled_beside_others() -> None:
    bench = Bench()
    async with bench.app.quarantine.alone(wanted=lambda: True):  # another's, of which the same is suspected
        ledger, was_alone = in_order(bench, {0: 2, 1: 2})
        await asyncio.sleep(0)
        ledger.acquit()
    await until(lambda: bench.lane.pending == 0)
    assert was_alone == [False, False]
    assert ledger.committable().offset == 2


async def test_in_order_too_those_that_died_begin_a_few_at_a_time_each_few_written_down_before() -> None:
    bench = Bench()
    said: list[set[int]] = []
    ledger, was_alone = in_order(bench, dict.fromkeys(range(30), 1) | {30: 0, 31: 0}, said=said)
    assert named(ledger) == set()  # none of them has begun
    await until(lambda: bench.lane.pending == 0)
    assert bench.begun == list(range(32))
    assert not any(was_alone)
    assert bench.app.consumer.told == 3  # 8, 16, 6
    few = [set(range(8)), set(range(8, 24)), set(range(24, 30)), set[int]()]
    assert [said[offset] for offset in (0, 7, 8, 23, 24, 29, 30)] == [few[n] for n in (0, 0, 1, 1, 2, 2, 3)]
    assert ledger.committable().offset == 32


async def test_in_order_the_next_few_begin_when_those_before_are_done() -> None:
    class Brokers:
        """They answer when they are told to."""

        def __init__(self) -> None:
            self.held: list[Any] = []

        async def put(self, output: Any, work: Any) -> None:
            self.held.append((work, output))

    bench = Bench(limit=100)
    brokers: Any = Brokers()
    bench.lane._outbox = brokers
    in_order(bench, dict.fromkeys(range(20), 1), outputs=[object()])
    await until(lambda: len(bench.begun) == FEW)
    await asyncio.sleep(0.02)  # several looks
    assert len(bench.begun) == FEW
    bench.lane._answered(brokers.held, None)
    await until(lambda: len(bench.begun) == 20)
    await bench.lane.cut()


async def test_each_time_a_few_more_begin() -> None:
    bench = Bench(limit=300)
    bench.go_on.set()
    bench.deliver(*range(150), died=range(150))
    await until(lambda: bench.lane.pending == 0)
    assert bench.app.consumer.told == 6  # 8, 16, 24, 32, 40, 30


def in_order(
    bench: Bench, crashes: dict[int, int], said: list[set[int]] | None = None, outputs: Sequence[Any] = ()
) -> tuple[Ledger, list[bool]]:
    """Deliver a record for each to a lane that keeps their order; was each alone in its process?

    `said`: gets for each which are said to have just begun.
    """
    records, was_alone = [FakeRecord(offset) for offset in crashes], list[bool]()
    ledger = Ledger(records[0])
    ledger._crashes |= crashes
    bench.app.consumer.ledgers.append(ledger)

    def handle(batch: Batch, index: int) -> list[Any]:
        bench.begun.append(batch.records[index].offset)
        was_alone.append(not bench.app.quarantine.is_calm)
        if said is not None:
            said.append(set(ledger.newest))
        return list(outputs)

    bench.lane.run_in_order(Batch(bench.lane, ledger, ledger.deliver(records)), handle)
    return ledger, was_alone


def has_begun(bench: Bench, count: int) -> bool:
    return len(bench.begun) == count


def named(ledger: Ledger) -> set[int]:
    """For whom another death would count."""
    return {offset for offset, crashes in told(ledger).crashes.items() if crashes == 2}


def told(ledger: Ledger) -> Told:
    """What the next owner would hear."""
    at = ledger.committable()
    return decode(at.metadata, at.offset, at.offset, FakeRecord(0).timestamp)
