"""Records in hand: what was delivered together, and each by itself."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.structs import ConsumerRecord

from schemas.envelope import Record
from streams.few_at_first import FEW
from streams.ledger import DIED_ONCE, Ledger

if TYPE_CHECKING:
    from streams.lane import Lane

RecordId = tuple[str, int, int, int]  # topic, partition, offset, append time: the same over a rebalance


@dataclass(slots=True, eq=False)
class Batch:
    """What an agent's stream yields: fresh records of one partition, in offset order.

    `envelopes` is parallel to `records` once `serve` has decoded them.
    """

    lane: "Lane"
    ledger: Ledger
    records: list[ConsumerRecord]
    envelopes: list[Any] = field(default_factory=list)
    at: int = 0  # the offset in hand, of one that is handled in order

    @property
    def is_suspect(self) -> bool:
        """It is one record, to be handled alone."""
        return len(self.records) == 1 and self.ledger.is_suspect(self.records[0].offset)

    @property
    def has_died(self) -> bool:
        """A process has died that had the first of them in hand, and it is not suspected yet."""
        return self.ledger.rank(self.records[0].offset) == DIED_ONCE

    def lay_down(self) -> None:
        """They wait: none of them is in hand until it begins."""
        for record in self.records:
            self.ledger.lay_down(record.offset)

    def in_parts(self) -> "list[Batch]":
        """The same in order: each suspect by itself, of those that a process died with a few, then a few more."""
        if not any(self.ledger.crashes(record.offset) for record in self.records):
            return [self]
        parts: list[Batch] = []
        few = FEW
        for record in self.records:
            rank = self.ledger.rank(record.offset)
            beside = parts[-1] if parts and rank == self.ledger.rank(parts[-1].records[0].offset) else None
            is_full = beside is not None and rank == DIED_ONCE and len(beside.records) == few
            if beside is None or rank < DIED_ONCE or is_full:
                few += FEW * is_full
                parts.append(Batch(self.lane, self.ledger, [record]))
            else:
                beside.records.append(record)
        return parts

    def without_suspects(self) -> "Batch":
        """The others: what may kill is not touched beside them."""
        return Batch(self.lane, self.ledger, [one for one in self.records if not self.ledger.is_suspect(one.offset)])

    @property
    def partition(self) -> int:
        """The partition that all of it came from."""
        return int(self.records[0].partition)

    async def settled(self) -> bool:
        """Wait until all before this batch is finished; False if the partition was lost meanwhile."""
        while self.ledger.live and self.ledger.lowest_unfinished() < self.records[0].offset:
            await asyncio.sleep(0.005)
        return self.ledger.live


class Work:
    """One record in hand. `left`: its outputs that the brokers have not answered yet."""

    __slots__ = ("id", "ledger", "left", "record")

    def __init__(self, record: ConsumerRecord, ledger: Ledger, left: int = 0) -> None:
        self.id = record_id(record)
        self.record, self.ledger, self.left = record, ledger, left

    @property
    def has_died(self) -> bool:
        """A process has died that had it in hand."""
        return self.ledger.crashes(self.record.offset) > 0

    @property
    def is_found(self) -> bool:
        """It was alone when it killed its process."""
        return self.ledger.is_found(self.record.offset)

    @property
    def rank(self) -> int:
        """Who comes before whom; see `Ledger.likeliest_first`."""
        return self.ledger.rank(self.record.offset)

    def must_be_alone(self) -> bool:
        """It is suspected, and its partition is still ours."""
        return self.ledger.live and self.ledger.is_suspect(self.record.offset)


def record_id(record: ConsumerRecord) -> RecordId:
    """What a record is known by."""
    return record.topic, record.partition, record.offset, record.timestamp


# How a lane is told to handle records, and what it asks about them.
AsyncHandler = Callable[[ConsumerRecord, Ledger], Awaitable[None]]
PlainHandler = Callable[[Batch, int], Sequence[Record]]
BatchHandler = Callable[[Sequence[ConsumerRecord]], Awaitable[None]]
Prepare = Callable[[Batch], Awaitable[None]]
Begin = Callable[[], float]
LookUp = Callable[[Batch], Awaitable[set[int]]]
Ahead = Callable[[ConsumerRecord], bool]


class Handling(NamedTuple):
    """How records that run at once are handled; see `Lane.run_at_once`."""

    handle: AsyncHandler
    look_up: LookUp | None
    ahead: Ahead
    over: Ahead
