"""The stages of documents: what they are made of, and their agents.

document-received -> partition_document -> chunks-prepared -> embed_chunks -> job-finished
retrieval-requested -> retrieve_context -> completion-requested-<provider>, or job-finished
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from processors.prompt_policy import PromptPolicy
from processors.retrieve_context import RetrievalRules, retrieve_context
from processors.stage import Emit, StageResult
from schemas.events import RetrievalRequested
from schemas.topics import Catalog
from settings import Settings
from sinks.documents import PostgresDocuments
from sinks.pool import Pool
from streams import metrics
from streams.app import StreamApp
from streams.decode import decoder
from streams.encode import Encoder
from streams.errors import StartError
from streams.live_providers import LiveProviders
from streams.providers import configured
from streams.rules import Newest, prompt_rules
from streams.serve import StageServer, Stream
from streams.vectors import Vectors
from vault.live import LiveSettings


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a worker that knows documents is composed from; what is to be closed goes on `stack`.

    `vectors.opened()`: the repository of this process, the same one for all its roles.
    """

    settings: Settings
    pool: Pool | None
    encoder: Encoder
    live: LiveSettings
    stack: AsyncExitStack
    vectors: Vectors


async def declare_ingestion(app: StreamApp, server: StageServer, catalog: Catalog, made: Knowledge) -> None:
    """Documents in: cut into chunks, and vectors of them stored."""


async def declare_retrieval(app: StreamApp, server: StageServer, catalog: Catalog, made: Knowledge) -> None:
    """Passages out: for an answer, or as they are."""
    settings = made.settings
    if made.pool is None:
        raise StartError("DATABASE_URL is not set: the role retrieval has to know which documents there are")
    adapters = _adapters(made)
    embedding: dict[str, Any] = {name: one for name, one in adapters.items() if one.capabilities.embeds}
    topic = catalog.full_name("retrieval-requested")
    requested = app.lane(topic, "retrieve_context", limit=settings.retrieval_concurrency)
    stage = partial(
        _retrieve_context, policy_now=Newest(prompt_rules, settings, made.live), providers=embedding,
        rerankers=adapters, vectors=made.vectors.opened(), ledger=PostgresDocuments(made.pool),
        rules=RetrievalRules(
            context_tokens=settings.context_tokens, refuse_from=settings.retrieved_risk_refuse_from,
            relevant_from=settings.relevant_from,
        ),
    )  # fmt: skip

    @app.agent(requested, name="retrieve_context")
    async def retrieve_context_agent(stream: Stream) -> None:
        await server.at_once(
            stream, decoder(RetrievalRequested), stage, name="retrieve_context", target="retrieval"
        )  # fmt: skip


async def _retrieve_context(
    event: RetrievalRequested, *, policy_now: Callable[[], PromptPolicy], **more: Any
) -> StageResult:
    """By the rules as they are when it begins: they may change while the process runs."""
    result = await retrieve_context(event, policy=policy_now(), **more)
    if isinstance(result, Emit):
        metrics.count_retrieved(result.events)
    return result


def _adapters(made: Knowledge) -> dict[str, Any]:
    """Providers of this deployment with connections of this role's own; they follow the settings where these do."""
    adapters: dict[str, Any] = {name: one.make() for name, one in configured(made.settings).items()}
    if made.live.follows:
        live = LiveProviders(made.settings, adapters)
        adapters = dict(live.providers)
        made.live.subscribe(live.take)
    for adapter in adapters.values():
        made.stack.push_async_callback(adapter.close)
    return adapters
