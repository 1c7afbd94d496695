"""Stage: document-received -> chunks-prepared, batch by batch; and job-finished, where nothing is left to do."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from processors.completion.with_image import NO_SUCH_PAYLOAD
from processors.documents.chunk_document import MAX_CHUNKS_PER_BATCH, Chunker
from processors.documents.document_outcome import ingested, is_of_document, not_ingested
from processors.documents.document_ports import (
    ChunkSize,
    ChunkWriter,
    DocumentLedger,
    DocumentParser,
    DocumentProgressWriter,
    FileReader,
    HeldFile,
    Pages,
    Version,
)
from processors.errors import PermanentError
from processors.ports import EmbeddingProvider
from processors.stage import Drop, StageResult
from schemas.events import Chunk, ChunksPrepared, DocumentReceived

GONE = (
    "there is no such file: it was never yours, it is not complete, or its time is over; upload it again with "
    "POST /payloads, or send it to POST /ingestion/ingest"
)


# For the embedding model of this provider: how long chunks are, and a chunker that cuts them so long.
ChunkSizes = Callable[[str], ChunkSize]
Chunking = Callable[[str, ChunkSize], Chunker]


async def partition_document(
    event: DocumentReceived,
    *,
    files: FileReader,
    parser: DocumentParser,
    chunk_size: ChunkSizes,
    chunking: Chunking,
    providers: Mapping[str, EmbeddingProvider],
    ledger: DocumentLedger,
    writer: ChunkWriter,
    progress: DocumentProgressWriter,
    now: datetime,
) -> StageResult:
    """Cut the job's file into chunks, and publish them while it is read: no document is ever whole in memory.

    Args:
        event: The file, as a reference.
        files: Where it lies.
        parser: Reads it.
        chunk_size: How it is cut, unless its version was begun with chunks of another size.
        chunking: Cuts it.
        providers: Those that make vectors here.
        ledger: Knows the document's versions.
        writer: Publishes the batches.
        progress: Tells how far it is.
        now: The time of the call.

    Returns:
        `Drop`, where batches are still to be embedded; else `Emit` with one `JobFinished`: completed, where the
        content is there already (`unchanged`) or all of it was embedded meanwhile; failed with `no-such-payload`, or
        with the code `document-...` of what is wrong with the file.

    Raises:
        RetryableError, PermanentError: As the ports raised them; `no-such-provider`.
    """
    provider, size = embedder(providers, event.provider), chunk_size(event.provider)
    try:
        async with files.held(event.request.document, user_id=event.job.user_id) as file:
            if file is None:
                return not_ingested(event, PermanentError(NO_SUCH_PAYLOAD, GONE), at=now)
            version = await ledger.begin(
                event.job, source=event.request.source, payload_id=event.request.document.payload_id, file=file,
                provider=event.provider, model=provider.embedding_model, size=size,
            )  # fmt: skip
            if not isinstance(version, Version):
                return ingested(event, version, at=now)
            if version.batches is None:
                chunker = chunking(event.provider, version.size or size)
                version = await _partition(event, version, file, parser, chunker, ledger, writer, progress)
        finished = await ledger.finish(version.version_id)
    except PermanentError as error:
        if is_of_document(error):
            return not_ingested(event, error, at=now)
        raise
    return Drop("partitioned") if finished is None else ingested(event, finished, at=now)


def embedder(providers: Mapping[str, EmbeddingProvider], name: str) -> EmbeddingProvider:
    """Who makes the vectors.

    Raises:
        PermanentError: Nobody of that name does here.
    """
    provider = providers.get(name)
    if provider is None:
        there = ", ".join(providers) or "none"
        raise PermanentError(
            "no-such-provider",
            f"this worker has no key or address of {name}, or it makes no vectors; those that do here are: {there}",
        )
    return provider


async def _partition(
    event: DocumentReceived, version: Version, file: HeldFile, parser: DocumentParser, chunker: Chunker,
    ledger: DocumentLedger, writer: ChunkWriter, progress: DocumentProgressWriter,
) -> Version:  # fmt: skip
    waiting: list[Chunk] = []
    batches = chunks = 0
    pages: Pages | None = None

    async def write(found: Sequence[Chunk], *, is_rest: bool = False) -> None:
        nonlocal batches, chunks, waiting
        waiting += found
        full = len(waiting) if is_rest else len(waiting) - len(waiting) % MAX_CHUNKS_PER_BATCH
        for batch in _batches(waiting[:full]):
            await writer.write(_prepared(event, version, batches, batch))
            batches, chunks = batches + 1, chunks + len(batch)
        waiting = waiting[full:]
        if full:  # also how a deletion is heard of meanwhile
            read, total = (pages.read, pages.total) if pages is not None else (0, None)
            told = await ledger.progress(version.version_id, pages=read, pages_total=total)
            await progress.tell(event.job, told)

    async for pages in parser.parse(file.path):
        # It counts the tokens of all that it cuts: others work meanwhile.
        await write(await asyncio.to_thread(list, chunker.feed(pages)))
    await write(await asyncio.to_thread(list, chunker.finish()), is_rest=True)
    if not chunks:
        raise PermanentError("document-empty", "there is no text in the file")
    await writer.flush()
    total = pages.total if pages is not None else None
    return await ledger.partitioned(version, chunks=chunks, batches=batches, pages=total)


def _batches(chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, ...]]:
    for first in range(0, len(chunks), MAX_CHUNKS_PER_BATCH):
        yield tuple(chunks[first : first + MAX_CHUNKS_PER_BATCH])


def _prepared(
    event: DocumentReceived, version: Version, batch: int, chunks: tuple[Chunk, ...]
) -> ChunksPrepared:  # fmt: skip
    return ChunksPrepared(
        job=event.job, provider=event.provider, document_id=version.document_id, version_id=version.version_id,
        source=version.source, batch=batch, chunks=chunks, timeout_s=event.timeout_s, rate_limit=event.rate_limit,
    )  # fmt: skip
