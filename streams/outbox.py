"""What a stage has to publish: one batch per partition on its way, and all that comes meanwhile goes with the next.

aiokafka's producer takes record by record: five coroutines and a future for each. An idempotent one sends one batch per
partition at a time anyway, so to fill the next one here costs no time, and a third of the work.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aiokafka.errors import KafkaError
from faust.exceptions import ProducerSendError

from schemas.envelope import Record

if TYPE_CHECKING:
    from streams.app import StreamApp

W = TypeVar("W")
Held = list[tuple[W, Record]]


class _Pile(Generic[W]):
    """What waits for one partition: batches that are full, and the one that is being filled."""

    def __init__(self) -> None:
        self.full: deque[tuple[Any, Held[W]]] = deque()
        self.batch: Any = None
        self.held: Held[W] = []
        self.is_sending = False

    def take(self) -> tuple[Any, Held[W]] | None:
        if self.full:
            return self.full.popleft()
        if self.batch is None:
            return None
        taken, self.batch, self.held = (self.batch, self.held), None, []
        return taken


class Outbox(Generic[W]):
    """Of one lane. It is as large as what the lane has at work, which the lane bounds."""

    def __init__(
        self,
        app: "StreamApp",
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        answered: Callable[[Sequence[tuple[W, Record]], BaseException | None], None],
    ) -> None:
        """Where it sends, and who hears of it.

        Args:
            app: Whose producer is used.
            spawn: Keeps a task.
            answered: Called once for what was put, with what came of it: None once the brokers have it.
        """
        self._app, self._spawn, self._answered = app, spawn, answered
        self._piles: dict[tuple[str, int], _Pile[W]] = {}

    async def put(self, record: Record, work: W) -> None:
        """Add a record. Waits only until its topic is known."""
        producer = self._app.producer
        partition = producer.partition_of(record)
        while partition is None:
            await self._app.know(record.topic)
            partition = producer.partition_of(record)
        pile = self._piles.get((record.topic, partition))
        if pile is None:
            pile = self._piles[record.topic, partition] = _Pile()
        if pile.batch is None or not _fits(pile.batch, record):
            if pile.batch is not None:
                pile.full.append((pile.batch, pile.held))
            pile.batch, pile.held = producer.new_batch(), []
            _fits(pile.batch, record)  # the first one is always taken
        pile.held.append((work, record))
        if not pile.is_sending:
            pile.is_sending = True
            self._spawn(self._send(record.topic, partition, pile))

    async def _send(self, topic: str, partition: int, pile: _Pile[W]) -> None:
        while (taken := pile.take()) is not None:
            batch, held = taken
            error: BaseException | None = None
            try:
                answer = await self._app.producer.send_batch(batch, topic, partition)
                answer.add_done_callback(self._app.look_at)
                await answer
            except (KafkaError, ProducerSendError) as found:
                error = found
            except Exception as bug:
                self._app.fail(topic, bug)
                return
            self._answered(held, error)
        pile.is_sending = False


def _fits(batch: Any, record: Record) -> bool:
    """Add it; False if the batch is full, which it is from then on."""
    added = batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers)
    return added is not None
