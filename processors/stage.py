"""What a stage is, and what it may decide."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from schemas.events import Attempt, CompletionRequested, Event


@dataclass(frozen=True, slots=True)
class Emit:
    """Done: publish these, in this order."""

    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Drop:
    """Nothing to do; `reason` is a kebab-case fact, counted as a metric label."""

    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """This event can never work. `code` is a kebab-case fact; `reason` is for people and holds no prompt text."""

    code: str
    reason: str
    retry_after_s: float | None = None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Later:
    """It may work, but not soon: the same event again in `wait_s`, with these `attempts`. Said by `run_stage`."""

    code: str
    message: str
    wait_s: float
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Hop:
    """Another provider is asked: its `event`. Said by `run_stage`.

    `source` is the provider that failed, with this `code`, which is of the class `reason`.
    """

    event: CompletionRequested
    source: str
    code: str
    reason: str


class RecordFacts(NamedTuple):
    """Where a gate stage's event stood in its log."""

    partition: int
    offset: int
    event_id: str


StageResult = Emit | Drop | DeadLetter | Later | Hop
# A gate stage is a plain function, quick and run in log order; every other one is async and runs beside others.
PlainStage = Callable[..., StageResult]
AsyncStage = Callable[..., Awaitable[StageResult]]
