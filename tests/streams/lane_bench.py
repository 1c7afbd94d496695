"""A lane by itself, with records and commits that tests make up."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from faust.types import TP

from streams.bad_luck import BadLuck
from streams.batch import Batch
from streams.lane import Lane
from streams.ledger import Ledger
from streams.quarantine import Quarantine

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
        ended: Collection[int] | None = None, ahead: Collection[int] = (),
    ) -> Ledger:  # fmt: skip
        """As the consumer does after an assignment: a ledger anew.

        `died`: in hand when a process died; `crashes`: how often; `ended`: what is found when that is looked up;
        `ahead`: cancelled, say.
        """
        records = [FakeRecord(offset, partition=partition) for offset in offsets]
        ledger = Ledger(records[0], end=0 if ended is None else max(offsets) + 1)
        ledger._crashes |= {**dict.fromkeys(died, 1), **crashes}
        batch = Batch(self.lane, ledger, ledger.deliver(records))
        self.app.consumer.ledgers.append(ledger)

        async def look_up(asked: Batch) -> set[int]:
            self.asked.append([record.offset for record in asked.records])
            return {record.offset for record in asked.records} & set(ended or ())

        self.lane.run_at_once(batch, self.handle, look_up=look_up, ahead=lambda record: record.offset in ahead)
        return ledger
