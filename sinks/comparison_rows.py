"""What is kept of a comparison, as it is read and written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from processors.errors import PermanentError


class TooManyComparisonsError(PermanentError):
    """The user has as many under way as there may be."""

    def __init__(self, limit: int) -> None:
        super().__init__("too-many-comparisons", f"{limit} comparisons are under way: wait for one, or cancel one")


class KeyReusedError(PermanentError):
    """Its Idempotency-Key was used for another comparison."""

    def __init__(self) -> None:
        super().__init__(
            "idempotency-key-reused", "this Idempotency-Key was used for another request: give each a key of its own"
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """What is compared.

    Attributes:
        prompts: One row each.
        variants: One column each: what of a request differs, as JSON.
        shared: What every request has beside them.
    """

    prompts: Sequence[str]
    variants: Sequence[Mapping[str, Any]]
    shared: Mapping[str, Any]

    @property
    def cells(self) -> int:
        """How many."""
        return len(self.prompts) * len(self.variants)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One as it is stored. `not_before`: nothing more is asked until then, for the reason `waits_for`."""

    comparison_id: UUID
    user_id: str
    state: str
    prompts: list[str]
    variants: list[dict[str, Any]]
    shared: dict[str, Any]
    created_at: datetime
    finished_at: datetime | None
    is_cancelled: bool
    not_before: datetime | None
    waits_for: str | None


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell with what has become of its job; `said`: of a refusal or a filtered answer."""

    cell: int
    state: str
    job_id: UUID | None
    rate_limited: int
    error: dict[str, Any] | None
    status: str | None
    said: str | None
    model: str | None
    provider: str | None
    usage: dict[str, Any] | None
    finish_reason: str | None
    latency_ms: float | None
    total_ms: float | None
    text: str | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A cell whose job is to be published, with the id that it has from now on."""

    cell: int
    job_id: UUID
    prompt: str
    variant: dict[str, Any]
    shared: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a comparison stands. `wait_s`: until more may be asked."""

    user_id: str
    is_cancelled: bool
    is_expired: bool
    wait_s: float
    waiting: int
    at_work: int
