"""Whose turn it is among records that are handled beside each other."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from streams.bad_luck import BadLuck
from streams.batch import Batch
from streams.lane import Lane
from streams.ledger import Ledger
from streams.quarantine import Quarantine


@dataclass(frozen=True)
class FakeRecord:
    offset: int
    topic: str = "work"
    partition: int = 0
    timestamp: int = 1_700_000_000_000

    @property
    def key(self) -> bytes:
        return b"%d" % self.offset


class FakeApp:
    """Notes failures."""

    def __init__(self) -> None:
        self.failed: list[Any] = []
        self.quarantine = Quarantine()

    def fail(self, what: object, error: BaseException) -> None:
        self.failed.append(error)


class Scene:
    """A lane with two places, and handlers that wait to be let go."""

    def __init__(self) -> None:
        self.lane = Lane(FakeApp(), "stage", 2, BadLuck("s"))  # type: ignore[arg-type]  # as much of it as a lane uses
        self.gates: dict[int, asyncio.Event] = {}
        self.ahead: set[bytes] = set()

    def deliver(self, *offsets: int) -> Ledger:
        records: list[Any] = [FakeRecord(offset) for offset in offsets]
        ledger = Ledger(records[0])
        ledger.deliver(records)
        batch = Batch(self.lane, ledger, records)
        self.lane.run_at_once(batch, self._handle, ahead=lambda record: record.key in self.ahead)
        return ledger

    async def _handle(self, record: Any, ledger: Ledger) -> None:
        gate = self.gates[record.offset] = asyncio.Event()
        await gate.wait()

    async def turn(self) -> list[int]:
        for _ in range(5):
            await asyncio.sleep(0)
        return sorted(work.record.offset for work in self.lane.running.values())


@pytest.fixture
async def scene() -> Any:
    scene = Scene()
    yield scene
    await scene.lane.cut()


async def test_no_more_run_at_once_than_there_are_places_and_each_has_its_turn(scene: Scene) -> None:
    ledger = scene.deliver(*range(5))
    assert await scene.turn() == [0, 1]
    scene.gates[1].set()
    assert await scene.turn() == [0, 2]
    scene.gates[0].set()
    scene.gates[2].set()
    assert await scene.turn() == [3, 4]
    scene.gates[3].set()
    scene.gates[4].set()
    assert await scene.turn() == []
    assert ledger.committable().offset == 5
    assert scene.lane.pending == 0


async def test_what_nothing_will_be_done_for_does_not_wait_for_its_turn(scene: Scene) -> None:
    scene.ahead.add(b"3")
    scene.deliver(*range(5))
    assert await scene.turn() == [0, 1, 3]
    scene.ahead.add(b"4")
    scene.lane.let_pass(b"2")  # somebody else's word about it: it goes on waiting
    scene.lane.let_pass(b"4")
    assert await scene.turn() == [0, 1, 3, 4]
    scene.gates[3].set()
    scene.gates[4].set()
    assert await scene.turn() == [0, 1]  # and takes nobody's place
    scene.gates[0].set()
    assert await scene.turn() == [1, 2]


async def test_what_waits_when_its_partition_goes_is_not_begun(scene: Scene) -> None:
    ledger = scene.deliver(*range(5))
    assert await scene.turn() == [0, 1]
    ledger.live = False
    scene.gates[0].set()
    scene.gates[1].set()
    assert await scene.turn() == []
    assert scene.lane.pending == 0
    assert ledger.committable().offset == 2
    scene.deliver(7)
    assert await scene.turn() == [7]
