"""The pipeline: one Faust agent per stage, in the order in which events flow. Start reading here.

    job-requested -> sanitize_prompt -> prompt-sanitized -> limit_rate -> job-admitted -> route_job
        -> completion-requested-<provider> -> generate_completion -> job-finished -> Postgres, webhooks
                                     │               └-> completion-streamed, piece by piece
                                     └-> completion-requested-<the next provider>, where this one fails
        -> embedding-requested-<provider> -> embed_texts -> job-finished
        -> training-requested -> train_adapter -> job-finished (see training.py)
        -> retrieval-requested -> retrieve_context (see knowledge.py)
        -> agent-step-requested <-> tool-call-requested (see agents.py)
    what can never work, at any of them                -> dead-letters -> Postgres
    what met a rule, at sanitize_prompt                -> security-incident-detected -> Postgres, user-updated

Each role is a Faust app, that is, a consumer group; `worker.py` composes what it needs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from processors.completion.fall_over import FallOver
from processors.completion.with_adapter import with_adapter
from processors.completion.with_image import with_image
from processors.embed_texts import embed_texts
from processors.filter.answer_policy import AnswerPolicy
from processors.filter.prompt_policy import PromptPolicy
from processors.generate_completion import generate_completion
from processors.learning.adapter_ports import AdapterLookup
from processors.limit_rate import RateLimiter
from processors.ports import CompletionProvider, DeltaWriter, EmbeddingProvider, ImageReader
from processors.route_job import KnownProviders, route_job
from processors.sanitize_prompt import no_classifier, sanitize_prompt
from processors.stage import Emit, StageResult
from schemas.events import (
    CompletionRequested,
    EmbeddingRequested,
    Job,
    JobAccepted,
    JobAdmitted,
    JobFinished,
    PromptSanitized,
    SecurityIncidentDetected,
    UserUpdated,
)
from schemas.topics import Catalog
from sinks.base import Sink
from streams import metrics
from streams.admission_log import AdmissionLog
from streams.app import StreamApp
from streams.batch import Batch
from streams.classifying import Classifying
from streams.decode import any_dead_letter, decoder
from streams.entry import Entry
from streams.guard import ProviderGuard
from streams.serve import StageServer, Stream
from streams.serve_sink import GiveUp, serve_sink
from streams.usage_log import UsageLog
from transport.table import CompactedTable

GATE_LIMIT = 1_000  # unfinished inputs of an in-order stage
SINK_LIMIT = 4_000
DEAD_LETTER_LIMIT = 100  # up to 2 MiB each


@dataclass(frozen=True, slots=True)
class GateParts:
    """What the gate needs from outside."""

    entry: Entry
    users: CompactedTable[UserUpdated]
    policy: Callable[[], PromptPolicy]  # as it is now: it may change between two records
    limiter: RateLimiter
    admission_log: AdmissionLog
    usage_log: UsageLog
    known_providers: Callable[[], KnownProviders]
    allowed_providers: Sequence[str]
    default_provider: str | None
    default_timeout_s: float
    clock_is_right: Callable[[], bool]
    is_cancelled: Callable[[Job], bool]
    is_disabled: Callable[[Job], bool]
    classifying: Classifying | None = None
    needs_score: bool = False
    default_embedding: str | None = None


def declare_gate(app: StreamApp, server: StageServer, catalog: Catalog, parts: GateParts) -> None:
    """May this job pass, and where does it go? Quick stages, in log order."""
    admitted_topic = catalog.full_name("job-admitted")
    job_requested = app.lane(catalog.full_name("job-requested"), "sanitize_prompt", limit=GATE_LIMIT, at_entry=True)
    prompt_sanitized = app.lane(catalog.full_name("prompt-sanitized"), "limit_rate", limit=GATE_LIMIT)
    job_admitted = app.lane(admitted_topic, "route_job", limit=GATE_LIMIT)

    async def know_users(batch: Batch) -> None:
        if await parts.entry.know_users(batch.envelopes):
            batch.envelopes = [parts.entry(record) for record in batch.records]
        if parts.classifying is not None:
            await parts.classifying.prepare(batch)

    @app.agent(job_requested, name="sanitize_prompt")
    async def sanitize_prompt_agent(stream: Stream) -> None:
        score_of = parts.classifying.score_of if parts.classifying is not None else no_classifier
        sanitize = partial(
            sanitize_prompt, users=parts.users.values, score_of=score_of, needs_score=parts.needs_score
        )  # fmt: skip

        def stage(event: JobAccepted, *, now: datetime, record: object) -> StageResult:  # noqa: ARG001 as below
            return sanitize(event, policy=parts.policy(), now=now)  # the rules may have changed

        await server.in_order(stream, parts.entry, stage, name="sanitize_prompt", prepare=know_users)

    async def know_the_past(batch: Batch) -> None:
        await parts.usage_log.prepare()
        await parts.admission_log.prepare(batch)

    @app.agent(prompt_sanitized, name="limit_rate")
    async def limit_rate_agent(stream: Stream) -> None:
        await server.in_order(
            stream,
            decoder(PromptSanitized),
            parts.limiter,
            name="limit_rate",
            prepare=know_the_past,
            beside_source=admitted_topic,
        )

    @app.agent(job_admitted, name="route_job")
    async def route_job_agent(stream: Stream) -> None:
        stage = _without_record(
            partial(
                route_job,
                providers=parts.known_providers,
                allowed=parts.allowed_providers,
                default=parts.default_provider,
                default_timeout_s=parts.default_timeout_s,
                clock_is_right=parts.clock_is_right,
                is_cancelled=parts.is_cancelled,
                is_disabled=parts.is_disabled,
                default_embedding=parts.default_embedding,
            )
        )
        await server.in_order(stream, decoder(JobAdmitted), stage, name="route_job")


def declare_completion(
    app: StreamApp,
    server: StageServer,
    catalog: Catalog,
    providers: Mapping[str, CompletionProvider],
    *,
    deltas: DeltaWriter,
    images: Callable[[], ImageReader],
    guards: Mapping[str, ProviderGuard],
    fall_over: FallOver,
    concurrency: Mapping[str, int],
    max_response_chars: int,
    answers: Callable[[], AnswerPolicy],
    link_hosts: Sequence[str] = (),
    adapters: AdapterLookup | None = None,
) -> None:
    """The work: one topic, one lane and one agent per provider, so one that hangs holds up no other.

    `adapters`: who may be answered by which trained adapter, None where there is no database; `images`: makes a reader
    of images, which holds no more than it has room for; each provider has its own.
    """
    for provider_name, provider in providers.items():
        topic = catalog.full_name("completion-requested-{provider}", provider=provider_name)
        requested = app.lane(topic, f"generate_completion-{provider_name}", limit=concurrency[provider_name])
        guard = guards[provider_name]
        app.lanes[topic].pace = guard.begin
        generate = partial(
            _generate_completion, provider=provider, deltas=deltas, guard=guard, fall_over=fall_over,
            max_response_chars=max_response_chars, answers_now=answers, link_hosts=link_hosts,
        )  # fmt: skip
        adapted = partial(with_adapter, stage=generate, adapters=adapters)
        stage = partial(with_image, stage=adapted, provider=provider, images=images(), fall_over=fall_over)

        @app.agent(requested, name=f"generate_completion-{provider_name}")
        async def generate_completion_agent(stream: Stream, stage: Any = stage, guard: ProviderGuard = guard) -> None:
            await server.at_once(
                stream, decoder(CompletionRequested), stage, name="generate_completion", target=guard.provider,
                guard=guard, fall_over=fall_over,
            )  # fmt: skip


async def _generate_completion(
    event: CompletionRequested, *, answers_now: Callable[[], AnswerPolicy], **more: Any
) -> StageResult:
    """By the rules as they are when it begins: they may change while the process runs."""
    result = await generate_completion(event, answers=answers_now(), **more)
    if event.retrieved is not None and isinstance(result, Emit):
        metrics.count_answer(result.events)
    return result


def declare_embedding(
    app: StreamApp,
    server: StageServer,
    catalog: Catalog,
    providers: Mapping[str, EmbeddingProvider],
    *,
    concurrency: Mapping[str, int],
) -> None:
    """Vectors, in the same way: a topic, a lane and an agent for each provider that makes them."""
    for provider_name, provider in providers.items():
        topic = catalog.full_name("embedding-requested-{provider}", provider=provider_name)
        requested = app.lane(topic, f"embed_texts-{provider_name}", limit=concurrency[provider_name])
        stage = partial(embed_texts, provider=provider)

        @app.agent(requested, name=f"embed_texts-{provider_name}")
        async def embed_texts_agent(stream: Stream, stage: Any = stage, provider_name: str = provider_name) -> None:
            await server.at_once(stream, decoder(EmbeddingRequested), stage, name="embed_texts", target=provider_name)


def declare_sink(
    app: StreamApp, catalog: Catalog, *, pending: Sink, outcomes: Sink, dead_letters: Sink, incidents: Sink,
    give_up: GiveUp,
) -> None:  # fmt: skip
    """What stays: a row per job, the webhooks that are due, what could never work, and what met a rule.

    `give_up`: of what is no event; what is no `job-admitted` is a dead letter of `route_job` already.
    """
    job_admitted = app.lane(catalog.full_name("job-admitted"), "store_pending", limit=SINK_LIMIT, is_sink=True)
    job_finished = app.lane(catalog.full_name("job-finished"), "store_outcome", limit=SINK_LIMIT, is_sink=True)
    dead_lettered = app.lane(
        catalog.full_name("dead-letters"), "store_dead_letter", limit=DEAD_LETTER_LIMIT, is_sink=True
    )

    incident = app.lane(
        catalog.full_name("security-incident-detected"), "store_incident", limit=SINK_LIMIT, is_sink=True
    )

    @app.agent(job_admitted, name="store_pending")
    async def store_pending_agent(stream: Stream) -> None:
        await serve_sink(stream, JobAdmitted, pending, name="store_pending")

    @app.agent(job_finished, name="store_outcome")
    async def store_outcome_agent(stream: Stream) -> None:
        await serve_sink(stream, JobFinished, outcomes, name="store_outcome", give_up=give_up)

    @app.agent(dead_lettered, name="store_dead_letter")
    async def store_dead_letter_agent(stream: Stream) -> None:
        await serve_sink(stream, any_dead_letter, dead_letters, name="store_dead_letter")

    @app.agent(incident, name="store_incident")
    async def store_incident_agent(stream: Stream) -> None:
        await serve_sink(stream, SecurityIncidentDetected, incidents, name="store_incident", give_up=give_up)


def _without_record(stage: Callable[..., Any]) -> Callable[..., Any]:
    """For a stage that does not ask where its event came from."""

    def run(event: Any, *, now: Any, record: Any) -> Any:  # noqa: ARG001 the record is what it does not ask for
        return stage(event, now=now)

    return run
