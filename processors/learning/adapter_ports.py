"""What is known of trained adapters, and who may use which, as Protocols; the adapters to them are in `sinks/`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from processors.learning.training_ports import LossPoint, TrainedAdapter, TrainingExample
from schemas.events import Job
from schemas.requests import TrainingRequest

ADAPTER_EXISTS, TOO_MANY_ADAPTERS = "adapter-exists", "too-many-adapters"
# Their servers have one adapter for all who ask them: whoever trains there last has it.
SHARED = frozenset({"qwen3vl"})
OWN = frozenset({"local"})  # theirs have one for each training, which is named


class NotBegunError(Exception):
    """A training may not begin. `code`, `message`: as its user sees it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def adapter_exists(name: str, *, is_in_training: bool) -> str:
    """That there is one of this name."""
    how = "is being trained" if is_in_training else "is there"
    return f"an adapter of yours called {name} {how}: choose another name, or DELETE /instruction/adapters/{name}"


def too_many_adapters(most: int) -> str:
    """That the user has as many as one may have."""
    return f"at most {most} adapters of yours are kept: delete one with DELETE /instruction/adapters/{{name}}"


@dataclass(frozen=True, slots=True)
class UsedExamples:
    """Of a user's examples: as many as a training takes, and how many there are."""

    examples: Sequence[TrainingExample]
    total: int


class ExampleReader(Protocol):
    """Has users' examples."""

    async def lessons(self, user_id: str) -> UsedExamples:
        """The newest ones, the oldest of them first, as many and as long as a training may take.

        Raises:
            RetryableError: The store is away.
        """
        ...


class AdapterLedger(Protocol):
    """One row for each user's adapter of a name. Every method raises RetryableError while the store is away.

    Each try at a training has an id of its own. Whoever no longer has the row by that id has lost it to another try, or
    to the user who has deleted it.
    """

    async def begin(
        self, job: Job, request: TrainingRequest, *, provider: str, is_shared: bool
    ) -> UUID | dict[str, Any]:
        """Begin it, or begin it anew: what an earlier try has left is to be forgotten. The id of this try.

        Args:
            job: Whose it is.
            request: What is trained.
            provider: Whose model learns.
            is_shared: The provider has one adapter for all: those of others are void from now on.

        Returns:
            The id; or the summary of the adapter, where this run of the job has made it already.

        Raises:
            NotBegunError: There is one of that name, or too many.
            RetryableError: `trainer-busy`: another one is trained on that server.
        """
        ...

    async def beat(self, adapter_id: UUID, losses: Sequence[LossPoint], *, examples: int, held_out: int) -> bool:
        """Say that it goes on; False where it is not this try's any more."""
        ...

    async def finish(self, adapter_id: UUID, trained: TrainedAdapter) -> dict[str, Any] | None:
        """It can be used from now on: its summary; None where it is not this try's any more."""
        ...

    async def fail(self, adapter_id: UUID, code: str, message: str) -> None:
        """There will be none."""
        ...

    async def is_anyones(self, job: Job, name: str) -> bool:
        """True where there is a row of that name that this job makes, by whichever try."""
        ...


@dataclass(frozen=True, slots=True)
class FoundAdapter:
    """One that can be used."""

    adapter_id: UUID
    name: str
    provider: str


class AdapterLookup(Protocol):
    """Who may use which. Every method raises RetryableError while the store is away."""

    async def ready(self, user_id: str) -> Sequence[FoundAdapter]:
        """The user's own that can be used now, by name."""
        ...

    async def last_trained_by(self, provider: str) -> str | None:
        """Whose adapter a server has that has one for all; None: of nobody who has trained it by us."""
        ...
