"""What holds for a job of any kind: it is asked for, let in, worked on, and has its one outcome; or is cancelled."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import UUID

from pydantic import Field, model_validator

from schemas.event_base import Event, Time
from schemas.request_fields import CallbackUrl, Metadata, Role, Text, UserId
from schemas.requests import AnyRequest, JobKind, as_kind

JobSource = Literal["rest", "kafka"]
Run = Annotated[int, Field(ge=1, le=2_147_483_647, description="only a redrive raises it")]
E = TypeVar("E", bound="Event")


class JobRequested(Event):
    """The public entry: somebody asks. `role` and `accepted_at` in it are ignored: the gate decides both."""

    user_id: UserId
    kind: JobKind
    request: AnyRequest
    callback_url: CallbackUrl | None = None
    expires_after: Annotated[float, Field(ge=1, le=86_400, description="seconds")] | None = None
    metadata: Metadata = {}

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        return with_request_of(self, self.kind)


def with_request_of(event: E, kind: JobKind) -> E:
    """The event, its request being one of its job's kind. Raises ValueError where it is none."""
    request = as_kind(kind, event.request)  # type: ignore[attr-defined]  # of the events that have one
    if request is not event.request:  # type: ignore[attr-defined]
        object.__setattr__(event, "request", request)  # it is being made, and frozen from then on
    return event


class StageTiming(Event):
    """When a stage had a job in hand; they ride along into the outcome."""

    stage: str
    started_at: Time
    ended_at: Time


class Risk(Event):
    """What our filter found in a job's text, which went on (`flag`) or did not (`refuse`).

    `score`: 0-1; `reason`: the kind of rule; `rules`: names, never patterns; `where`: in which of the texts.
    """

    score: float
    action: Literal["flag", "refuse"]
    reason: str
    rules: tuple[str, ...] = ()
    where: Literal["prompt", "instruction", "schema", "answer", "passage"] = "prompt"


class Job(Event):
    """What every event after the first carries. `risk`: None where our filter found nothing worth telling."""

    job_id: UUID
    run: Run = 1
    user_id: str
    role: Role
    kind: JobKind
    callback_url: str | None = None
    accepted_at: Time
    expires_at: Time
    metadata: dict[str, str] = {}
    timings: tuple[StageTiming, ...] = ()
    risk: Risk | None = None

    def with_risk(self, risk: Risk | None) -> Self:
        """The job with what our filter found; what was found before stays where nothing weighs more."""
        if risk is None or (
            self.risk is not None and self.risk.score >= risk.score and self.risk.action == risk.action
        ):
            return self
        return self.model_copy(update={"risk": risk})

    def with_timing(self, timing: StageTiming) -> Self:
        """The job as it leaves a stage."""
        return self.model_copy(update={"timings": (*self.timings, timing)})


class JobEvent(Event):
    """An event on behalf of one job."""

    job: Job


class RequestEvent(JobEvent):
    """An event with the job's request."""

    request: AnyRequest

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        return with_request_of(self, self.job.kind)


class JobAccepted(RequestEvent):
    """`job-requested` once the gate knows whose it is. Never on a topic: the first stage's input.

    `source`: the way in; `address`: the caller's, of a job that an ingress of ours was asked for.
    """

    source: JobSource = "kafka"
    address: str | None = None


class PromptSanitized(RequestEvent):
    """The request with its text normalised, and not refused; `job.risk` tells of what was doubtful."""


class RateLimit(Event):
    """Where a user stands: `remaining` of `limit` requests in `window_s`, the next one free in `reset_s`."""

    limit: int
    remaining: int
    window_s: int
    reset_s: int


class JobAdmitted(RequestEvent):
    """The user's rate allows it."""

    rate_limit: RateLimit | None = None


class Attempt(Event):
    """One call to a provider."""

    provider: str
    code: str | None = None
    ms: int


class WorkEvent(JobEvent):
    """A piece of work that a stage has `work_s` seconds for, and that may be put off."""

    timeout_s: float
    rate_limit: RateLimit | None = None
    retry: Annotated[int, Field(description="how often it was put off: a long retry is the same event again")] = 0
    attempts: Annotated[tuple[Attempt, ...], Field(description="the tries until then")] = ()

    @property
    def work_s(self) -> float:
        """How long it may be worked on."""
        return self.timeout_s


class StreamedRange(Event):
    """Where in `completion-streamed` an answer is told piece by piece: all of its execution's records lie there."""

    execution: UUID
    partition: int
    first_offset: int
    last_offset: int


class JobError(Event):
    """Why a job has no answer. `code` is stable (CONTRACT: names that clients rely on)."""

    code: str
    message: Text
    retry_after_s: float | None = None


class JobFinished(JobEvent):
    """The one outcome of a run of a job. `result` is the body that the waiting call answers."""

    status: Literal["completed", "error"]
    result: dict[str, Any] | None = None
    error: JobError | None = None
    finished_at: Time
    attempts: tuple[Attempt, ...] = ()
    rate_limit: RateLimit | None = None
    stream: StreamedRange | None = None  # None where the answer was not told piece by piece

    @classmethod
    def completed(cls, job: Job, *, result: dict[str, Any], at: datetime, **more: Any) -> Self:
        """The job has its answer."""
        return cls(job=job, status="completed", result=result, finished_at=at, **more)

    @classmethod
    def failed(cls, job: Job, *, error: JobError, at: datetime, **more: Any) -> Self:
        """The job has ended without one."""
        return cls(job=job, status="error", error=error, finished_at=at, **more)

    def with_attempts(self, attempts: tuple[Attempt, ...]) -> Self:
        """The outcome with the calls that led to it, also where the client sees them (`meta.attempts`)."""
        result = self.result
        if result is not None and "meta" in result:
            told = [attempt.model_dump(exclude_none=True) for attempt in attempts]
            result = {**result, "meta": {**result["meta"], "attempts": told}}
        return self.model_copy(update={"attempts": attempts, "result": result})


class JobCancelRequested(Event):
    """Somebody wants a job to end; honoured for its owner and for admins. Anyone may publish it."""

    job_id: UUID
    user_id: UserId
