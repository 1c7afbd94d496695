"""What the consumer writes down before it hands out what was delivered."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from aiokafka.structs import OffsetAndMetadata
from faust.types import TP

from streams.consumer import Consumer
from tests.streams.lane_bench import FakeRecord

TP_0 = TP("completion-requested-openai", 0)
DIED = f"{FakeRecord(0).timestamp:x} L s0.4.0"  # four were in hand, and their owner has not left in order


class Scene(Consumer):
    """A consumer without Faust: `events` are what it commits and hands out, in turn."""

    def __init__(self, metadata: str) -> None:
        self.ledgers, self.delivered_at = {}, 0.0
        self._committed = {TP_0: OffsetAndMetadata(0, metadata)}
        self.events: list[Any] = []
        lane = SimpleNamespace(is_sink=False, limit=2)
        channel = SimpleNamespace(queue=SimpleNamespace(put_nowait=self._handed_out))
        self.app: Any = SimpleNamespace(lanes={TP_0.topic: lane}, topics=SimpleNamespace(_tp_index={TP_0: [channel]}))

    def _handed_out(self, batch: Any) -> None:
        self.events.append([record.offset for record in batch.records])

    def highwater(self, tp: TP) -> int:
        return 10

    async def commit_begun(self, tps: Sequence[TP]) -> bool:
        self.events.append("written down")
        return True

    async def deliver(self, *offsets: int) -> None:
        await self._deliver({TP_0: [FakeRecord(offset) for offset in offsets]})


async def test_what_died_once_is_written_down_before_it_is_handed_out_whenever_it_comes() -> None:
    scene = Scene(DIED)
    await scene.deliver(0, 1)
    await scene.deliver(2, 3)
    await scene.deliver(4, 5)
    assert scene.events == ["written down", [0, 1], "written down", [2, 3], [4, 5]]


async def test_who_is_acquitted_is_written_down_at_once() -> None:
    scene = Scene(DIED)
    await scene.deliver(0, 1)
    scene.events.clear()
    await scene.acquit()
    assert scene.events == []  # nobody was suspected
    scene.ledgers[TP_0]._crashes[1] = 2
    await scene.acquit()
    assert scene.events == ["written down"]
    assert not scene.ledgers[TP_0].is_suspect(1)


async def test_that_somebody_works_on_a_partition_is_written_down_once() -> None:
    scene = Scene("")
    await scene.deliver(0, 1)
    await scene.deliver(2, 3)
    assert scene.events == ["written down", [0, 1], [2, 3]]
