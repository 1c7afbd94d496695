"""The events, one frozen class per topic, in the order in which a job meets them.

Unknown fields are ignored, so a producer may add optional ones first; anything else is a new event and topic.
Times are UTC; durations carry their unit in the name.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from schemas.requests import (
    AgentRequest,
    AnyRequest,
    CallbackUrl,
    ChatRequest,
    DocumentRequest,
    EmbeddingRequest,
    ExampleRequest,
    JobKind,
    Metadata,
    RagRequest,
    Role,
    SearchRequest,
    SpeechRequest,
    Text,
    TrainingRequest,
    UserId,
    as_kind,
)

FORGOTTEN_WORKER_S = 3600.0
FOREVER = datetime(9999, 1, 1, tzinfo=UTC)  # a quarantine until somebody lifts it
JobSource = Literal["rest", "kafka"]
E = TypeVar("E", bound="Event")
Time = AwareDatetime  # one without a zone cannot be compared with any other
Run = Annotated[int, Field(ge=1, le=2_147_483_647, description="only a redrive raises it")]
TOOL_S = 10.0  # more than any tool of an agent may take
MAX_OFFERED_MODELS = 100  # of a provider; they ride in every heartbeat


class Event(BaseModel):
    """Base of all that travels on a topic."""

    # Inputs are prompts and answers: an error that reaches a log must not carry them there.
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


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


class Passage(Event):
    """A piece of a document that was found. `index`: its number in the answer's citations, from 1.

    `score`: 0-1, the higher the better, comparable within one answer only; `page`: from 1, None where the document has
    none; `risk`: how surely it holds instructions for a model (0-1).
    """

    index: Annotated[int, Field(ge=1)]
    text: str
    score: float
    document_id: UUID
    source: str
    chunk: int
    page: int | None = None
    section: str | None = None
    risk: float = 0.0


class Retrieved(Event):
    """What a question is to be answered from: passages of the user's documents, best first, and how they came.

    `left_out`: so many were found, and held too much of what reads like instructions.
    """

    question: str
    passages: tuple[Passage, ...]
    embedding_provider: str
    embedding_model: str
    mode: str = "hybrid"
    left_out: int = 0


class Decision(Event):
    """Whether a query needs one answer or an agent, and who says so: our rules, or a model that was asked."""

    kind: Literal["SIMPLE", "COMPLEX"]
    reason: str
    by: Literal["rules", "model"] = "rules"


class CompletionRequested(JobEvent):
    """A job's prompt is ready to be sent to a provider.

    `retry`: how often it was put off (a long retry is the same event again); `attempts`: the tries until then;
    `left_s`: what of `timeout_s` the providers before this one have left to it; `retrieved`: of a question to
    documents, what it is answered from; `decision`: of a query that might have been for an agent, why it is not.
    """

    provider: str
    request: ChatRequest
    timeout_s: float
    rate_limit: RateLimit | None = None
    retry: int = 0
    attempts: tuple[Attempt, ...] = ()
    left_s: float | None = None
    retrieved: Retrieved | None = None
    decision: Decision | None = None

    @property
    def work_s(self) -> float:
        """How long it may be worked on."""
        return self.timeout_s if self.left_s is None else self.left_s


class EmbeddingRequested(JobEvent):
    """A job's texts are ready to be sent to a provider. `retry`, `attempts`: as in `CompletionRequested`."""

    provider: str
    request: EmbeddingRequest
    timeout_s: float
    rate_limit: RateLimit | None = None
    retry: int = 0
    attempts: tuple[Attempt, ...] = ()

    @property
    def work_s(self) -> float:
        """How long it may be worked on."""
        return self.timeout_s


class SpeechRequested(JobEvent):
    """A job's text is ready to be said by a provider. `retry`, `attempts`: as in `CompletionRequested`."""

    provider: str
    request: SpeechRequest
    timeout_s: float
    rate_limit: RateLimit | None = None
    retry: int = 0
    attempts: tuple[Attempt, ...] = ()

    @property
    def work_s(self) -> float:
        """How long it may be worked on."""
        return self.timeout_s


class ExampleReceived(JobEvent):
    """An example to learn from is to be kept. `retry`, `attempts`: as in `CompletionRequested`."""

    request: ExampleRequest
    timeout_s: float
    rate_limit: RateLimit | None = None
    retry: int = 0
    attempts: tuple[Attempt, ...] = ()

    @property
    def work_s(self) -> float:
        """How long it may be worked on."""
        return self.timeout_s


class TrainingRequested(JobEvent):
    """A provider's model is to learn from its user's examples. `retry`, `attempts`: as in `CompletionRequested`."""

    provider: str
    request: TrainingRequest
    timeout_s: float
    rate_limit: RateLimit | None = None
    retry: int = 0
    attempts: tuple[Attempt, ...] = ()

    @property
    def work_s(self) -> float:
        """How long it may be worked on."""
        return self.timeout_s


class RetrievalRequested(JobEvent):
    """Passages are to be found for a question or a query.

    `provider`: makes its vector; `provider_is_named`: the user said so, and no other will do; `llm_provider`: answers
    the question, where there is one.
    """

    provider: str
    provider_is_named: bool = False
    llm_provider: str | None = None
    request: RagRequest | SearchRequest
    timeout_s: float
    rate_limit: RateLimit | None = None
    retry: int = 0
    attempts: tuple[Attempt, ...] = ()

    @property
    def work_s(self) -> float:
        """How long it may be worked on."""
        return self.timeout_s


class DocumentReceived(JobEvent):
    """A file is to be partitioned into chunks. `provider` will make their vectors."""

    provider: str
    request: DocumentRequest
    timeout_s: float
    rate_limit: RateLimit | None = None
    retry: int = 0
    attempts: tuple[Attempt, ...] = ()

    @property
    def work_s(self) -> float:
        """How long it may be worked on."""
        return self.timeout_s


class Chunk(Event):
    """A piece of a document, of at most so many tokens as its embedding model reads.

    `index`: its place in the document, from 0; `start`, `end`: its characters in the document's text (all pages' texts,
    joined by line feeds), `end` exclusive; `section`: the headings above it, joined by " > ".
    """

    index: Annotated[int, Field(ge=0)]
    text: str
    start: int
    end: int
    tokens: int
    page: int | None = None
    section: str | None = None


class ChunksPrepared(JobEvent):
    """A batch of a document's chunks, at most 32. `version_id`: of the document's version that they are of."""

    provider: str
    document_id: UUID
    version_id: UUID
    source: str
    batch: Annotated[int, Field(ge=0)]
    chunks: Annotated[tuple[Chunk, ...], Field(min_length=1, max_length=32)]
    timeout_s: float
    rate_limit: RateLimit | None = None
    retry: int = 0
    attempts: tuple[Attempt, ...] = ()

    @property
    def work_s(self) -> float:
        """How long it may be worked on."""
        return self.timeout_s


class AgentStep(Event):
    """A step of an agent that is over: what it thought and did, and what came of it.

    `risk`: how surely the observation holds instructions for a model (0-1); `is_untrusted`: it holds text that came
    from documents or from outside.
    """

    step: Annotated[int, Field(ge=1)]
    thought: str
    action: str
    action_input: dict[str, Any] = {}
    observation: str
    risk: float = 0.0
    is_untrusted: bool = False


class AgentSpent(Event):
    """What a run of an agent has cost so far. `cost`: in the currency of the prices, 0 where there are none."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt_tokens + self.completion_tokens


class AgentState(Event):
    """What a run of an agent knows; it rides in its events.

    `steps`: the newest ones; `digest`: what is left of older ones; `memory`: what it knows of earlier runs;
    `is_tainted`: it has read text that came from documents or from outside; `last_call`, `repeats`: how often in a row
    it has wanted the same.
    """

    steps: tuple[AgentStep, ...] = ()
    digest: str = ""
    memory: str = ""
    spent: AgentSpent = AgentSpent()
    is_tainted: bool = False
    last_call: str = ""
    repeats: int = 0
    decision: Decision | None = None


class AgentStepRequested(JobEvent):
    """An agent is to think about its next step. `is_undecided`: first, whether the query needs an agent at all."""

    provider: str
    request: AgentRequest
    step: Annotated[int, Field(ge=1)] = 1
    state: AgentState = AgentState()
    is_undecided: bool = False
    timeout_s: float
    rate_limit: RateLimit | None = None
    retry: int = 0
    attempts: tuple[Attempt, ...] = ()

    @property
    def work_s(self) -> float:
        """How long it may be worked on."""
        return self.timeout_s


class ToolCallRequested(JobEvent):
    """An agent has thought, and a tool is to be run. `action_input`: as the model gave it, not checked yet."""

    provider: str
    request: AgentRequest
    step: Annotated[int, Field(ge=1)]
    thought: str
    action: str
    action_input: dict[str, Any]
    state: AgentState
    timeout_s: float
    rate_limit: RateLimit | None = None
    retry: int = 0
    attempts: tuple[Attempt, ...] = ()

    @property
    def work_s(self) -> float:
        """How long it may be worked on."""
        return self.timeout_s + TOOL_S  # its tool has a time of its own


class AgentProgress(Event):
    """How far an agent is; texts are cut. `observation`: None while the step's tool has not answered."""

    step: int
    max_steps: int
    thought: str
    action: str
    action_input: dict[str, Any] = {}
    observation: str | None = None


class DocumentProgress(Event):
    """How far a document is. `pages`, `chunks`: that were read, and made vectors of; a total is None until known."""

    pages: int = 0
    pages_total: int | None = None
    chunks: int = 0
    chunks_total: int | None = None


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


class SecurityIncidentDetected(Event):
    """Somebody tried what a rule is against. Its `ce_id` is the incident's: the same event makes the same one.

    `reason`: the kind of rule, never the pattern; `source`: the way in; `address`: the caller's, where an ingress knew
    it; `score`: how sure we are (0-1); `excerpt`: the beginning of the text, its secrets masked.
    """

    at: Time
    user_id: Annotated[str, Field(max_length=128)]
    reason: Annotated[str, Field(max_length=100)]
    stage: Annotated[str, Field(max_length=100)]
    job_id: UUID | None = None
    run: Run = 1
    source: JobSource | None = None
    address: Annotated[str, Field(max_length=45)] | None = None
    score: float = 1.0
    excerpt: Annotated[str, Field(max_length=200)] = ""


class UserUpdated(Event):
    """A user as the gate and the ingress must know it (compacted by user_id).

    `disabled` is for ever where the user was deleted; `token_epoch`: tokens of a lower one are worth nothing. The
    limits are this user's own, None where those of the user's role hold. `quarantined_until`: until then nothing of
    theirs is taken.
    """

    user_id: UserId
    role: Role
    disabled: bool = False
    token_epoch: int = 0
    rate_limit_requests: int | None = None
    tokens_per_minute: int | None = None
    max_in_flight: int | None = None
    max_pending: int | None = None
    quarantined_until: Time | None = None

    def is_quarantined(self, now: datetime) -> bool:
        """Nothing of theirs is taken now."""
        return self.quarantined_until is not None and now < self.quarantined_until


class ProviderOffer(Event):
    """A provider that a worker has the key or address of.

    `models`: the first of them where there are many; `can`: `stream`, `images`, `embeddings`, or only `speech`: what
    speaks is an offer of its own, with `speakers` and `languages`; so is what trains, with `training`, or with
    `training-unavailable` and a `note` that says why not; `parameters`: of `generation_config`; `healthy`:
    whether it answered when it was last asked, None before; `code`: why it is not; `breaker`: whether this worker asks
    it for answers at all.
    """

    name: str
    models: tuple[str, ...] = ()
    default_model: str | None = None
    can: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    embedding_model: str | None = None
    healthy: bool | None = None
    code: str | None = None
    checked_at: Time | None = None
    breaker: Literal["closed", "half-open", "open"] | None = None
    speakers: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    note: str | None = None


class StageLoad(Event):
    """How busy a stage of one worker is."""

    stage: str
    in_flight: int
    lag: int
    finished_last_minute: int


class WorkerHeartbeat(Event):
    """A worker lives (compacted by worker; every 5 s; `stopped` is its last one)."""

    worker: str
    at: Time
    roles: tuple[str, ...]
    partitions: dict[str, tuple[int, ...]] = {}
    stages: tuple[StageLoad, ...] = ()
    providers: tuple[ProviderOffer, ...] = ()
    version: str = ""
    http: str | None = None
    stopped: bool = False
    process: str = ""  # tells two processes of one name apart
    started_at: Time | None = None

    def is_forgotten(self, now: datetime) -> bool:
        """True once it has been silent for so long that nobody asks for it."""
        return (now - self.at).total_seconds() > FORGOTTEN_WORKER_S


def utc_from_ms(timestamp_ms: int) -> datetime:
    """A broker's timestamp as a time."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=timestamp_ms)


def ms_from_utc(at: datetime) -> int:
    """A time as a broker's timestamp."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
