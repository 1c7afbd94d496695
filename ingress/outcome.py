"""How a job ended."""

import contextlib
from dataclasses import dataclass, replace
from typing import Any

import orjson
from pydantic import ValidationError

from schemas.events import RateLimit, StreamedRange
from sinks.postgres import JobRow


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended, from its event or from its row. `replayed`: it was asked for before, with the same key."""

    status: str
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    rate_limit: RateLimit | None = None
    replayed: bool = False
    stream: StreamedRange | None = None


def outcome_of(row: JobRow) -> Outcome:
    """As it is stored."""
    stream: StreamedRange | None = None
    with contextlib.suppress(ValidationError):  # of a version that tells it otherwise: then its text is told as a whole
        stream = StreamedRange.model_validate(row.stream) if row.stream else None
    return Outcome(row.status, row.result, row.error, stream=stream)


def in_one_order(outcome: Outcome) -> Outcome:
    """The same, whose result is written in the same letters whether its event told it, or its row.

    Postgres keeps names in an order of its own (jsonb).
    """
    if outcome.result is None:
        return outcome
    return replace(outcome, result=orjson.loads(orjson.dumps(outcome.result, option=orjson.OPT_SORT_KEYS)))
