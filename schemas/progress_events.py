"""What is told of a job before it ends; nothing depends on its arrival."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from schemas.event_base import Event, Time
from schemas.job_events import Attempt, RateLimit, Run


class DocumentProgress(Event):
    """How far a document is. `pages`, `chunks`: that were read, and made vectors of; a total is None until known."""

    pages: int = 0
    pages_total: int | None = None
    chunks: int = 0
    chunks_total: int | None = None


class AgentProgress(Event):
    """How far an agent is; texts are cut. `observation`: None while the step's tool has not answered."""

    step: int
    max_steps: int
    thought: str
    action: str
    action_input: dict[str, Any] = {}
    observation: str | None = None


class TrainingProgressed(Event):
    """How far a training is, which began `elapsed_s` ago.

    `steps`: of all its epochs, 0 where nobody knows; `loss`: of the last step, None likewise.
    """

    epoch: int = 0
    epochs: int
    step: int = 0
    steps: int = 0
    loss: float | None = None
    elapsed_s: float = 0.0


class JobProgressed(Event):
    """A small fact on the way; nothing depends on its arrival.

    `waiting`: it is tried again at `retry_at`; `attempts` are the tries of earlier rounds; `document`, `agent`,
    `training`: how far it is.
    """

    job_id: UUID
    run: Run = 1
    user_id: str
    stage: str
    state: Literal["admitted", "started", "retrying", "waiting", "working"]
    at: Time
    attempt: int | None = None
    code: str | None = None
    rate_limit: RateLimit | None = None
    retry_at: Time | None = None
    attempts: tuple[Attempt, ...] | None = None
    document: DocumentProgress | None = None
    agent: AgentProgress | None = None
    training: TrainingProgressed | None = None


class CompletionStreamed(Event):
    """A piece of an answer: the `sequence`-th of one execution, which is one try at the answer; `final`: its last."""

    job_id: UUID
    run: Run = 1
    user_id: str
    execution: UUID
    sequence: Annotated[int, Field(ge=0)]
    text: str
    final: bool = False
