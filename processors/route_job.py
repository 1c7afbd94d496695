"""Stage: job-admitted -> the topic of the work, and word to who waits.

completion-requested-<provider>, embedding-requested-<provider>, speech-requested, example-received,
training-requested, retrieval-requested, document-received or agent-step-requested.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from processors.agents.classify_query import as_chat, by_rules
from processors.cancelled import USER_DISABLED, cancelled
from processors.stage import Emit, StageResult
from processors.train_adapter import NO_TRAINING
from schemas.events import (
    AgentState,
    AgentStepRequested,
    CompletionRequested,
    DocumentReceived,
    EmbeddingRequested,
    Event,
    ExampleReceived,
    Job,
    JobAdmitted,
    JobError,
    JobFinished,
    JobProgressed,
    RetrievalRequested,
    SpeechRequested,
    TrainingRequested,
)
from schemas.requests import (
    AgentRequest,
    AnyRequest,
    ChatRequest,
    DocumentRequest,
    EmbeddingRequest,
    ExampleRequest,
    RagRequest,
    SearchRequest,
    SmartRequest,
    SpeechRequest,
    TrainingRequest,
)
from schemas.topics import ONLY_SPEAKING

NO_SUCH_PROVIDER, NOT_ALLOWED = "no-such-provider", "not-allowed"
DOCUMENT_S = 900.0
TRAINING_S = 86_400.0  # its job's end ends it sooner
MAX_TIMEOUT_S = 120.0
SPOKEN_CHARS_PER_S = 40.0  # half as fast as a voice on two slow cores
SMART_AGENT, SMART_STEPS = "smart", 5  # of a query that turns out to need an agent
ONLY_ADMINS_SIMULATE = "only admins rehearse failures: leave generation_config.simulate_failure out"


def not_present(absent: Sequence[str], present: Sequence[str]) -> str:
    """That these providers are not there, and who is."""
    what = "provider" if len(absent) == 1 else "providers"
    are = "is" if len(absent) == 1 else "are"
    there = ", ".join(present) or "none"
    if not absent:
        return f"no provider is present; present are: {there}"
    return f"the {what} {', '.join(absent)} {are} not present; present are: {there}"


def no_vectors(absent: Sequence[str], present: Sequence[str]) -> str:
    """That this provider makes no vectors, and who does."""
    there = ", ".join(present) or "none"
    if not absent:
        return f"no provider that is present makes vectors; those that do are: {there}"
    return f"the provider {', '.join(absent)} makes no vectors; those that do are: {there}"


def not_speaking(absent: Sequence[str], present: Sequence[str]) -> str:
    """That this provider does not speak, and who does."""
    there = ", ".join(present) or "none"
    if not absent:
        return f"no provider that is present speaks; those that do are: {there}"
    return f"the provider {', '.join(absent)} does not speak; those that do are: {there}"


def not_training(absent: Sequence[str], present: Sequence[str], why_not: Mapping[str, str]) -> str:
    """That this provider does not train, why, and who does; of nobody in particular, why nobody does."""
    there = f"those that train are: {', '.join(present) or 'none'}"
    told = [why_not[name] for name in absent or why_not if name in why_not]
    if absent and not told:
        return f"the provider {', '.join(absent)} does not train; {there}"
    return "; ".join([*told, there]) if told or absent else f"no provider that is present trains; {there}"


def speech_time_s(chars: int, *, default_s: float) -> float:
    """What a text of so many characters may take to be said, where its request does not say it."""
    return max(default_s, min(MAX_TIMEOUT_S, chars / SPOKEN_CHARS_PER_S))


@dataclass(frozen=True, slots=True)
class KnownProviders:
    """Names of providers: `alive`, that live workers can reach; `seen`, that any worker could ever reach;
    `configured`, that this deployment has the key or address of; `embedding`, of them those that make vectors;
    `silent`, those that make vectors and do nothing else; `speaking`, `spoke`: as the first two, of those that speak,
    who need not be among the others; `training`, `trained`: likewise, of those that train; `not_training`: why others
    do not."""

    alive: Sequence[str] = ()
    seen: Sequence[str] = ()
    configured: Sequence[str] = ()
    embedding: Sequence[str] = ()
    silent: Sequence[str] = ()
    speaking: Sequence[str] = ()
    spoke: Sequence[str] = ()
    training: Sequence[str] = ()
    trained: Sequence[str] = ()
    not_training: Mapping[str, str] = field(default_factory=dict)

    def that_answer(self) -> "KnownProviders":
        """Those of them that answer prompts."""
        alive, seen, have = (
            [name for name in names if name not in self.silent] for names in (self.alive, self.seen, self.configured)
        )
        return KnownProviders(alive, seen, have, self.embedding)

    def that_speak(self) -> "KnownProviders":
        """Those that speak."""
        return KnownProviders(self.speaking, self.spoke)

    def that_train(self) -> "KnownProviders":
        """Those that train."""
        return KnownProviders(self.training, self.trained)

    def that_embed(self) -> "KnownProviders":
        """Those of them that make vectors."""
        alive, seen = ([name for name in names if name in self.embedding] for names in (self.alive, self.seen))
        return KnownProviders(alive, seen, (), self.embedding)


def route_job(
    event: JobAdmitted,
    *,
    providers: Callable[[], KnownProviders],
    allowed: Sequence[str],
    default: str | None,
    default_timeout_s: float,
    clock_is_right: Callable[[], bool],
    is_cancelled: Callable[[Job], bool],
    is_disabled: Callable[[Job], bool] = lambda _: False,
    default_embedding: str | None = None,
    document_s: float = DOCUMENT_S,
    now: datetime,
) -> StageResult:
    """Send the job to the provider asked for (of several the first that lives), else the default, else the first there.

    While no worker lives that could do it, it waits in the topic of one that somebody will come back for: never in
    one that nobody has ever read where there is another.

    Args:
        event: The job.
        providers: What is known of them now.
        allowed: Names that have a topic.
        default: Its name, if one is set.
        default_timeout_s: Of a request that does not say it.
        default_embedding: Who makes vectors, if one is set.
        document_s: What one step of a document's way may take.
        clock_is_right: False while nothing may be expired, since nobody knows what time it is.
        is_cancelled: True of a job that is not to go on.
        is_disabled: True of a job whose user may have nothing done any more.
        now: The time.

    Returns:
        `Emit` with the event of the work and `JobProgressed`, or with a `JobFinished`:
        `cancelled`, `user-disabled`, `expired`, `no-such-provider`, `not-allowed`, `training-unavailable`.
    """
    job = event.job
    if is_disabled(job):
        return cancelled(job, at=now, code=USER_DISABLED)
    if is_cancelled(job):
        return cancelled(job, at=now)
    if now >= job.expires_at and clock_is_right():
        error = JobError(code="expired", message="the job waited longer than it was good for; send it again")
        return Emit((JobFinished.failed(job, error=error, at=now),))
    request = event.request
    if isinstance(request, (ChatRequest, RagRequest, AgentRequest, SmartRequest)):
        simulates = request.generation_config.simulate_failure is not None
        if simulates and job.role != "admin":
            error = JobError(code=NOT_ALLOWED, message=ONLY_ADMINS_SIMULATE)
            return Emit((JobFinished.failed(job, error=error, at=now),))
    if isinstance(request, ExampleRequest):
        received = ExampleReceived(
            job=job, request=request, timeout_s=default_timeout_s, rate_limit=event.rate_limit
        )  # fmt: skip
        return Emit((received, _progressed(event, now)))
    known = providers()
    if isinstance(request, SpeechRequest):
        speaker = _choose(request.providers, known.that_speak(), allowed=allowed, default=None, told=not_speaking)
        if isinstance(speaker, JobError):
            return Emit((JobFinished.failed(job, error=speaker, at=now),))
        timeout_s = request.timeout or speech_time_s(len(request.prompt), default_s=default_timeout_s)
        spoken = SpeechRequested(
            job=job, provider=speaker, request=request, timeout_s=timeout_s, rate_limit=event.rate_limit
        )  # fmt: skip
        return Emit((spoken, _progressed(event, now)))
    if isinstance(request, TrainingRequest):
        return _training(event, request, known, allowed=allowed, default=default, now=now)
    who_answers, who_embeds = _asked_for(request)
    chosen: dict[str, str] = {}
    for what, asked_for in (("answers", who_answers), ("embeds", who_embeds)):
        if asked_for is None:
            continue
        embeds = what == "embeds"
        there = known.that_embed() if embeds else known.that_answer()
        first = (default_embedding or default) if embeds else default
        choice = _choose(
            asked_for, there, allowed=allowed, default=first, told=no_vectors if embeds else not_present
        )  # fmt: skip
        if isinstance(choice, JobError):
            return Emit((JobFinished.failed(job, error=choice, at=now),))
        chosen[what] = choice
    requested = _requested(
        event, chosen.get("answers"), chosen.get("embeds"), default_timeout_s=default_timeout_s, document_s=document_s
    )
    return Emit((requested, _progressed(event, now)))


def _progressed(event: JobAdmitted, now: datetime) -> JobProgressed:
    job = event.job
    return JobProgressed(
        job_id=job.job_id, run=job.run, user_id=job.user_id, stage="route_job", state="admitted", at=now,
        rate_limit=event.rate_limit,
    )  # fmt: skip


def _training(
    event: JobAdmitted, request: TrainingRequest, known: KnownProviders, *, allowed: Sequence[str], default: str | None,
    now: datetime,
) -> Emit:  # fmt: skip
    def told(absent: Sequence[str], present: Sequence[str]) -> str:
        return not_training(absent, present, known.not_training)

    trainer = _choose(request.providers, known.that_train(), allowed=allowed, default=default, told=told)
    if isinstance(trainer, JobError):
        error = trainer.model_copy(update={"code": NO_TRAINING})
        return Emit((JobFinished.failed(event.job, error=error, at=now, rate_limit=event.rate_limit),))
    requested = TrainingRequested(
        job=event.job, provider=trainer, request=request, timeout_s=TRAINING_S, rate_limit=event.rate_limit
    )  # fmt: skip
    return Emit((requested, _progressed(event, now)))


def _asked_for(request: AnyRequest) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Who is to answer, and who is to make vectors: None: nobody; empty: the choice is left to us."""
    if isinstance(request, (ChatRequest, AgentRequest, SmartRequest)):
        return request.providers, None
    if isinstance(request, RagRequest):
        return request.providers, (request.embedding_provider,) if request.embedding_provider else ()
    return None, request.providers


def _choose(
    asked_for: Sequence[str], known: KnownProviders, *, allowed: Sequence[str], default: str | None,
    told: Callable[[Sequence[str], Sequence[str]], str],
) -> str | JobError:  # fmt: skip
    ranks = [[name for name in allowed if name in names] for names in (known.alive, known.seen, known.configured)]
    answering = [name for name in allowed if name not in ONLY_SPEAKING] if told is not_present else []
    candidates = next(filter(None, ranks), answering)
    absent = [name for name in asked_for if not any(name in names for names in ranks)]
    wanted: str | None = default if default in candidates else candidates[0] if candidates else None
    if asked_for:
        wanted = next((name for name in asked_for if name in ranks[0]), asked_for[0])
    if wanted is None or absent:
        there = candidates if any(ranks) else ()
        return JobError(code=NO_SUCH_PROVIDER, message=told(absent, there))
    return wanted


def _requested(
    event: JobAdmitted, answering: str | None, embedding: str | None, *, default_timeout_s: float, document_s: float
) -> Event:
    """The work."""
    job, request, rate_limit = event.job, event.request, event.rate_limit
    if isinstance(request, DocumentRequest):
        return DocumentReceived(
            job=job, provider=embedding or "", request=request, timeout_s=document_s, rate_limit=rate_limit
        )  # fmt: skip
    timeout_s = request.timeout or default_timeout_s
    if isinstance(request, (RagRequest, SearchRequest)):
        named = request.embedding_provider if isinstance(request, RagRequest) else request.provider
        return RetrievalRequested(
            job=job, provider=embedding or "", provider_is_named=named is not None, llm_provider=answering,
            request=request, timeout_s=timeout_s, rate_limit=rate_limit,
        )  # fmt: skip
    if isinstance(request, EmbeddingRequest):
        return EmbeddingRequested(
            job=job, provider=embedding or "", request=request, timeout_s=timeout_s, rate_limit=rate_limit
        )  # fmt: skip
    if isinstance(request, (AgentRequest, SmartRequest)):
        return _first_step(event, request, answering or "", timeout_s=timeout_s)
    if not isinstance(request, ChatRequest):
        raise TypeError(f"{type(request).__name__} has no stage")
    return CompletionRequested(
        job=job, provider=answering or "", request=request, timeout_s=timeout_s, rate_limit=rate_limit
    )  # fmt: skip


def _first_step(
    event: JobAdmitted, request: AgentRequest | SmartRequest, provider: str, *, timeout_s: float
) -> AgentStepRequested | CompletionRequested:
    """An agent's first step; of a query where rules say so one answer, and where they cannot tell, a model is asked."""
    job, rate_limit = event.job, event.rate_limit
    if isinstance(request, AgentRequest):
        return AgentStepRequested(
            job=job, provider=provider, request=request, timeout_s=timeout_s, rate_limit=rate_limit
        )  # fmt: skip
    decision = by_rules(request.query)
    if decision is not None and decision.kind == "SIMPLE":
        return CompletionRequested(
            job=job, provider=provider, request=as_chat(request), timeout_s=timeout_s, rate_limit=rate_limit,
            decision=decision,
        )  # fmt: skip
    agent = AgentRequest(
        goal=request.query, agent_id=request.agent_id or SMART_AGENT, max_steps=SMART_STEPS,
        provider=request.provider, generation_config=request.generation_config, timeout=request.timeout,
    )  # fmt: skip
    return AgentStepRequested(
        job=job, provider=provider, request=agent, timeout_s=timeout_s, rate_limit=rate_limit,
        state=AgentState(decision=decision), is_undecided=decision is None,
    )  # fmt: skip
