"""The stages of documents: what they are made of, and their agents.

document-received -> partition_document -> chunks-prepared -> embed_chunks -> job-finished
retrieval-requested -> retrieve_context -> completion-requested-<provider>, or job-finished
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from parsing.parser import ChildParser
from processors.documents.chunk_document import Chunker
from processors.documents.document_ports import ChunkSize
from processors.embed_chunks import embed_chunks
from processors.filter.prompt_policy import PromptPolicy
from processors.loops import end
from processors.partition_document import partition_document
from processors.ports import EmbeddingProvider
from processors.retrieve_context import RetrievalRules, retrieve_context
from processors.stage import Emit, StageResult
from providers.token_counters import chunk_tokens, token_counter
from schemas.events import ChunksPrepared, DocumentReceived, RetrievalRequested
from schemas.topics import Catalog
from sinks.document_sweep import OldVersions
from sinks.documents import PostgresDocuments
from sinks.payloads import PayloadStore
from streams import metrics
from streams.app import StreamApp
from streams.chunk_writer import ChunkTopic
from streams.decode import decoder
from streams.document_sweep import sweep_documents
from streams.errors import StartError
from streams.files import StoredFiles
from streams.guards import partitions_share
from streams.made import Made, adapters_of
from streams.paced_embedding import paced
from streams.progress import DocumentProgressTopic
from streams.rules import Newest, prompt_rules
from streams.serve import StageServer, Stream


async def declare_ingestion(app: StreamApp, server: StageServer, catalog: Catalog, made: Made) -> bool:
    """Documents in: cut into chunks, and vectors of them stored. False where no provider makes vectors.

    Raises:
        StartError: There is no database, or the vectors cannot be opened.
    """
    settings, pool = made.settings, made.pool
    if pool is None:
        raise StartError("DATABASE_URL is not set, which is where documents and their files are: name the database")
    prepared_topic = catalog.full_name("chunks-prepared")
    providers = _embedding(adapters_of(made), made, app, prepared_topic)
    if not providers:
        return False
    vectors, ledger = made.vectors.opened(), PostgresDocuments(pool)
    files, parser = StoredFiles(PayloadStore(pool), at_once=settings.ingestion_concurrency), ChildParser()

    def chunk_size(provider: str) -> ChunkSize:
        return ChunkSize(chunk_tokens(provider, settings.max_chunk_tokens), settings.chunk_overlap_tokens)

    def chunking(provider: str, size: ChunkSize) -> Chunker:
        return Chunker(
            counter=token_counter(provider), max_tokens=size.max_tokens, overlap_tokens=size.overlap_tokens
        )  # fmt: skip

    partition = partial(
        partition_document, files=files, parser=parser, chunk_size=chunk_size, chunking=chunking, providers=providers,
        ledger=ledger,
        progress=DocumentProgressTopic(app, made.encoder, stage="partition_document"),
    )  # fmt: skip
    embed = partial(
        embed_chunks, providers=providers, vectors=vectors, ledger=ledger,
        progress=DocumentProgressTopic(app, made.encoder, stage="embed_chunks"),
        max_chunks=settings.max_embed_chunks, max_tokens=settings.max_embed_tokens,
    )  # fmt: skip

    async def partition_and_publish(event: DocumentReceived, *, now: datetime) -> StageResult:
        async with contextlib.aclosing(ChunkTopic(app, made.encoder)) as writer:
            return await partition(event, writer=writer, now=now)

    document_received = app.lane(
        catalog.full_name("document-received"), "partition_document", limit=settings.ingestion_concurrency
    )
    chunks_prepared = app.lane(prepared_topic, "embed_chunks", limit=settings.embedding_concurrency)

    @app.agent(document_received, name="partition_document")
    async def partition_document_agent(stream: Stream) -> None:
        await server.at_once(
            stream, decoder(DocumentReceived), partition_and_publish, name="partition_document", target="documents"
        )

    @app.agent(chunks_prepared, name="embed_chunks")
    async def embed_chunks_agent(stream: Stream) -> None:
        await server.at_once(stream, decoder(ChunksPrepared), embed, name="embed_chunks", target="documents")

    sweeping = asyncio.create_task(sweep_documents(OldVersions(pool), vectors), name="old documents")
    made.stack.push_async_callback(end, sweeping)
    return True


def _embedding(
    adapters: Mapping[str, Any], made: Made, app: StreamApp, topic: str
) -> Mapping[str, EmbeddingProvider]:  # fmt: skip
    """Those that make vectors, at their pace, of which this process has the share that it has of `topic`."""
    share = partitions_share(app, topic)
    return {
        name: paced(adapter, made.settings, share=share)
        for name, adapter in adapters.items()
        if adapter.capabilities.embeds
    }


async def declare_retrieval(app: StreamApp, server: StageServer, catalog: Catalog, made: Made) -> bool:
    """Passages out: for an answer, or as they are. False where no provider makes vectors.

    Raises:
        StartError: There is no database, or the vectors cannot be opened.
    """
    settings = made.settings
    if made.pool is None:
        raise StartError("DATABASE_URL is not set: the role retrieval has to know which documents there are")
    adapters, topic = adapters_of(made), catalog.full_name("retrieval-requested")
    providers = _embedding(adapters, made, app, topic)
    if not providers:
        return False
    requested = app.lane(topic, "retrieve_context", limit=settings.retrieval_concurrency)
    stage = partial(
        _retrieve_context, policy_now=Newest(prompt_rules, settings, made.live),
        providers=providers,
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

    return True


async def _retrieve_context(
    event: RetrievalRequested, *, policy_now: Callable[[], PromptPolicy], **more: Any
) -> StageResult:
    """By the rules as they are when it begins: they may change while the process runs."""
    result = await retrieve_context(event, policy=policy_now(), **more)
    if isinstance(result, Emit):
        metrics.count_retrieved(result.events)
    return result
