"""What a stage publishes: in order, one batch per partition on its way, and nobody goes without an answer."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder

from schemas.envelope import Record
from streams.outbox import Outbox
from tests.waiting import until

BATCH_BYTES = 1024


class Brokers:
    """Stands for an app and its producer. `taken`: of each partition, the batches (how many records each)."""

    def __init__(self) -> None:
        self.taken: dict[int, list[int]] = {0: [], 1: []}
        self.known = self.asked = 0
        self.answers: list[asyncio.Future[Any]] = []
        self.waits = False
        self.seen: list[asyncio.Future[Any]] = []
        self.producer = self

    async def know(self, topic: str) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        self.known = 1

    def partition_of(self, record: Record) -> int | None:
        if record.partition is not None:
            return record.partition
        return 0 if self.known else None

    def new_batch(self) -> BatchBuilder:
        return BatchBuilder(BATCH_BYTES, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, partition: int) -> "asyncio.Future[Any]":
        batch.close()
        self.taken[partition].append(batch.record_count())
        answer = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        if not self.waits:
            answer.set_result(None)
        return answer

    def look_at(self, answer: "asyncio.Future[Any]") -> None:
        self.seen.append(answer)


class Scene:
    def __init__(self) -> None:
        self.brokers = Brokers()
        self.answered: list[tuple[int, BaseException | None]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.outbox: Outbox[int] = Outbox(self.brokers, self._spawn, self._answered)  # type: ignore[arg-type]

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.tasks.add(asyncio.create_task(coroutine))

    def _answered(self, held: Sequence[tuple[int, Record]], error: BaseException | None) -> None:
        self.answered += [(work, error) for work, _ in held]

    async def put(self, *works: int, partition: int | None = None, size: int = 10) -> None:
        for work in works:
            await self.outbox.put(Record("t", b"key", b"x" * size, [], partition), work)


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_what_comes_at_once_goes_in_one_batch_and_each_is_answered(scene: Scene) -> None:
    await scene.put(1, 2, 3)
    await until(lambda: len(scene.answered) == 3)
    assert scene.answered == [(1, None), (2, None), (3, None)]
    assert scene.brokers.taken[0] == [3]
    assert scene.brokers.asked == 1  # its topic was not known
    assert scene.brokers.seen == scene.brokers.answers


async def test_what_comes_while_one_is_on_its_way_goes_with_the_next(scene: Scene) -> None:
    scene.brokers.waits = True
    await scene.put(1)
    await until(lambda: scene.brokers.taken[0] == [1])
    await scene.put(2, 3, 4)
    await asyncio.sleep(0.01)
    assert scene.brokers.taken[0] == [1]  # one at a time: their order is kept
    scene.brokers.answers[0].set_result(None)
    await until(lambda: scene.brokers.taken[0] == [1, 3])
    scene.brokers.answers[1].set_result(None)
    await until(lambda: [work for work, _ in scene.answered] == [1, 2, 3, 4])


async def test_partitions_do_not_wait_for_each_other(scene: Scene) -> None:
    scene.brokers.waits = True
    await scene.put(1, partition=0)
    await scene.put(2, partition=1)
    await until(lambda: (scene.brokers.taken[0], scene.brokers.taken[1]) == ([1], [1]))


async def test_full_batches_follow_each_other_and_one_too_large_for_any_goes_by_itself(scene: Scene) -> None:
    await scene.put(*range(10), size=300)
    await scene.put(10, size=5000)
    await scene.put(11)
    await until(lambda: len(scene.answered) == 12)
    assert [work for work, _ in scene.answered] == list(range(12))
    assert len(scene.brokers.taken[0]) > 3
    assert sum(scene.brokers.taken[0]) == 12


@pytest.mark.parametrize("error", [MessageSizeTooLargeError(), KafkaError("away")])
async def test_all_of_a_batch_that_is_refused_hear_of_it_and_the_next_is_sent(scene: Scene, error: KafkaError) -> None:
    scene.brokers.waits = True
    await scene.put(1, 2)
    await until(lambda: scene.brokers.taken[0] == [2])
    scene.brokers.answers[0].set_exception(error)
    await until(lambda: len(scene.answered) == 2)
    assert scene.answered == [(1, error), (2, error)]
    await scene.put(3)
    await until(lambda: scene.brokers.taken[0] == [2, 1])
    scene.brokers.answers[1].set_result(None)
    await until(lambda: scene.answered[-1] == (3, None))
