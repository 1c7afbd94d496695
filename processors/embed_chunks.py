"""Stage: chunks-prepared -> vectors, and job-finished after the last batch of a document."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from processors.documents.document_outcome import ingested, is_of_document, not_ingested
from processors.documents.document_ports import (
    Collection,
    DocumentLedger,
    DocumentProgressWriter,
    EmbeddedChunk,
    VectorRepository,
    VersionState,
)
from processors.errors import PermanentError
from processors.partition_document import embedder
from processors.ports import EmbeddingProvider
from processors.stage import Drop, StageResult
from schemas.events import Chunk, ChunksPrepared

CALL_S = 300.0  # of one call: a provider that hangs does not hold a place for as long as the whole step may take
SEEN_BY_NOBODY: tuple[VersionState, ...] = ("deleted", "failed", "replaced")


async def embed_chunks(
    event: ChunksPrepared,
    *,
    providers: Mapping[str, EmbeddingProvider],
    vectors: VectorRepository,
    ledger: DocumentLedger,
    progress: DocumentProgressWriter,
    max_chunks: int,
    max_tokens: int,
    now: datetime,
) -> StageResult:
    """Make vectors of a batch of chunks, store them, and count the batch; the same batch again changes nothing.

    Args:
        event: The batch.
        providers: Those that make vectors here.
        vectors: Where they lie.
        ledger: Knows which batches are done.
        progress: Tells how far it is.
        max_chunks: Texts in one call of the provider.
        max_tokens: Tokens in one call; a chunk of more goes alone.
        now: The time of the call.

    Returns:
        `Emit` with one `JobFinished` where this was the document's last batch, or the document was deleted meanwhile
        (`document-deleted`, with what was stored taken back); else `Drop`.

    Raises:
        RetryableError, PermanentError: As the ports raised them; `no-such-provider`.
    """
    provider = embedder(providers, event.provider)
    try:
        wanted = await ledger.wanted(event, model=provider.embedding_model)
        if wanted == "wanted":
            embedded = await _embed(event, provider, max_chunks=max_chunks, max_tokens=max_tokens)
            collection = Collection(event.provider, provider.embedding_model, len(embedded[0].vector))
            state = await ledger.storing(event, collection=collection)
            if state not in SEEN_BY_NOBODY:
                await _store(event, collection, embedded, vectors)
                state, told = await ledger.embedded(event)
                if state in SEEN_BY_NOBODY:
                    await vectors.delete_version(event.job.user_id, collection, event.version_id)
                else:
                    await progress.tell(event.job, told)
        finished = await ledger.finish(event.version_id)
    except PermanentError as error:
        if is_of_document(error):
            return not_ingested(event, error, at=now)
        raise
    return Drop("counted") if finished is None else ingested(event, finished, at=now)


async def _embed(
    event: ChunksPrepared, provider: EmbeddingProvider, *, max_chunks: int, max_tokens: int
) -> list[EmbeddedChunk]:
    found: list[EmbeddedChunk] = []
    timeout_s = min(event.timeout_s, CALL_S)
    for chunks in _calls(event.chunks, max_chunks=max_chunks, max_tokens=max_tokens):
        answer = await provider.embed([chunk.text for chunk in chunks], purpose="passage", timeout_s=timeout_s)
        found += [EmbeddedChunk(chunk, vector) for chunk, vector in zip(chunks, answer.vectors, strict=True)]
    return found


def _calls(chunks: Sequence[Chunk], *, max_chunks: int, max_tokens: int) -> Iterator[list[Chunk]]:
    call: list[Chunk] = []
    tokens = 0
    for chunk in chunks:
        if call and (len(call) == max_chunks or tokens + chunk.tokens > max_tokens):
            yield call
            call, tokens = [], 0
        call.append(chunk)
        tokens += chunk.tokens
    yield call


async def _store(
    event: ChunksPrepared, collection: Collection, embedded: Sequence[EmbeddedChunk], vectors: VectorRepository
) -> None:
    await vectors.store(
        event.job.user_id, collection, document_id=event.document_id, version_id=event.version_id,
        source=event.source, chunks=embedded,
    )  # fmt: skip
