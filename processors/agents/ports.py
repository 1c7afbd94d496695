"""What the stages of agents need from outside, as Protocols: their steps as they are stored, calls out, and memory.

The adapters: `sinks/agent_steps.py` (Postgres), `sinks/agent_calls.py` (the guarded way out).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from uuid import UUID

from schemas.events import AgentStep, Job

Approval = Literal["requested", "approved", "rejected"]


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What a model wanted, and what it took to ask it. `is_tainted`: it had read untrusted text when it wanted that."""

    thought: str
    action: str
    action_input: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    is_tainted: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What came of it.

    `risk`: how surely it holds instructions for a model (0-1); `is_untrusted`: it is text from documents or from
    outside, or the doing of a run that had read some: what such a run says may be what that text wanted said.
    """

    text: str
    risk: float = 0.0
    is_untrusted: bool = False


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A step as it is stored; `observed`: None while its tool has not answered."""

    planned: PlannedStep
    observed: Observed | None = None
    approval: Approval | None = None


@dataclass(frozen=True, slots=True)
class Remembered:
    """A step of an earlier run."""

    job_id: UUID
    step: int
    goal: str
    action: str
    action_input: dict[str, Any]
    observation: str
    is_untrusted: bool


class StepStore(Protocol):
    """Steps, each written once per (job, run, step). Every method raises RetryableError while Postgres is away."""

    async def get(self, job: Job, step: int) -> StoredStep | None:
        """One step, if it is stored."""
        ...

    async def plan(self, job: Job, agent_id: str, step: int, planned: PlannedStep, *, goal: str) -> StoredStep:
        """Store what is to be done; what is stored already stays, and is what is returned."""
        ...

    async def observe(self, job: Job, step: int, observed: Observed) -> StoredStep:
        """The same for what came of it."""
        ...

    async def ask(self, job: Job, step: int) -> Approval:
        """See to it that the step's user is asked for approval; what was said, where it was said already."""
        ...

    async def claim(self, job: Job, step: int, *, for_s: float) -> bool:
        """True if the step's call is the caller's to make, and nobody else's for so long; False once it was made."""
        ...

    async def whole(self, job: Job, numbers: Sequence[int]) -> Sequence[AgentStep]:
        """These steps of the job with what came of them, in order, each of the newest run that has made it."""
        ...

    async def recent(self, job: Job, agent_id: str, *, limit: int) -> Sequence[Remembered]:
        """The newest steps of this user's agent in other jobs, newest first."""
        ...

    async def these(self, job: Job, agent_id: str, meant: Sequence[tuple[UUID, int]]) -> Sequence[Remembered]:
        """Those of them (job, step) that are of this user's agent in other jobs, and not forgotten; in their order."""
        ...

    async def has_vectors(self, job: Job) -> None:
        """Note that there are vectors of the run's steps, so that they go when the steps do."""
        ...


@dataclass(frozen=True, slots=True)
class OutwardReply:
    """What another side answered. `text`: the beginning of its body; `is_cut`: there was more."""

    status_code: int
    content_type: str
    text: str
    is_cut: bool = False


class OutwardCalls(Protocol):
    """Calls to hosts that the operator has named."""

    @property
    def hosts(self) -> Sequence[str]:
        """Which ones."""
        ...

    async def call(
        self, method: Literal["GET", "POST"], url: str, *, body: bytes | None, headers: Mapping[str, str]
    ) -> OutwardReply:
        """One call; a redirect is an answer like others.

        Raises:
            PermanentError: `call-refused` (the host is not among them, or not to be called), `call-failed` (it cannot
                be reached, or does not answer in time).
        """
        ...
