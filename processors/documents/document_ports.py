"""What the stages of documents need from outside, as Protocols: the model's tokens, files, vectors, and what is known.

The adapters: `parsing/` (files), `vectors/` (Qdrant), `sinks/documents.py` (Postgres).
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol
from uuid import UUID

from schemas.events import Chunk, ChunksPrepared, DocumentProgress, Job
from schemas.requests import Among, DocumentReference, SearchMode

# --- files ---


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list item, table or heading of a document, in reading order.

    `level`: of a heading, 1 the highest; None of all else. `page`: from 1; None where the document has none.
    """

    text: str
    page: int | None = None
    level: int | None = None


@dataclass(frozen=True, slots=True)
class Pages:
    """What has been read of a document since the last one. `read` of `total` pages (total None: not known)."""

    blocks: tuple[Block, ...]
    read: int
    total: int | None


class TokenCounter(Protocol):
    """Counts as an embedding model does."""

    def count(self, text: str) -> int:
        """How many tokens the model reads of it, without those that it adds itself; quick, and in any thread."""
        ...


class DocumentParser(Protocol):
    """Reads files of many types, each by its content, in a process of its own with bounds on all it may take."""

    def parse(self, path: Path) -> AsyncIterator[Pages]:
        """What stands in it, in reading order.

        Raises:
            PermanentError: `document-unreadable` (broken), `document-empty` (no text), `document-scanned` (pages
                without text: it names the OCR extra), `document-encrypted`, `document-type-unknown` (lists those
                that are taken), `document-too-large` (a bound was met: which, and what to do).
        """
        ...


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A copy of a file on the disk. `sha256`: of its content, as it was computed when it came; `media_type`: as said
    by whoever sent it.
    """

    path: Path
    size: int
    sha256: str
    media_type: str


class FileReader(Protocol):
    """Files from where they were kept before their job was published."""

    def held(self, reference: DocumentReference, *, user_id: str) -> AbstractAsyncContextManager[HeldFile | None]:
        """A copy on the disk for as long as it is needed; None where there is none, or it is somebody else's.

        No more are held at once than there is room for, so it may wait for others to be done.

        Raises:
            RetryableError: The store is away.
            PermanentError: Here is no store.
        """
        ...


# --- what is known of documents ---


@dataclass(frozen=True, slots=True)
class Collection:
    """Where the vectors of one model lie. Vectors of two models do not go together, so neither do their collections."""

    provider: str
    model: str
    dimensions: int


VersionState = Literal["ingesting", "active", "replaced", "deleted", "failed"]
BatchState = Literal["wanted", "counted", "replaced", "deleted", "failed"]


@dataclass(frozen=True, slots=True)
class ChunkSize:
    """How long chunks are: `max_tokens` of one, and up to `overlap_tokens` of its end begin the next one."""

    max_tokens: int
    overlap_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a document, as a job makes it. `chunks`, `batches`: None until all of it was partitioned.

    `size`: of its chunks, all of them; None of one that was begun before that was kept.
    """

    document_id: UUID
    version_id: UUID
    user_id: str
    source: str
    state: VersionState = "ingesting"
    pages: int | None = None
    chunks: int | None = None
    batches: int | None = None
    size: ChunkSize | None = None


@dataclass(frozen=True, slots=True)
class Same:
    """The content is there already, cut as it would be now, with vectors of that model."""

    document_id: UUID
    version_id: UUID
    pages: int | None
    chunks: int


class DocumentLedger(Protocol):
    """Which documents there are, and how far they are. Every method raises RetryableError while Postgres is away.

    Those that do something for a version raise PermanentError `document-deleted` where it, or its document, was deleted
    meanwhile, `document-ended` where its job had ended, and `document-lost` where nothing is known of it any more;
    `embedded` and `wanted` say so.
    """

    async def begin(
        self, job: Job, *, source: str, payload_id: UUID, file: HeldFile, provider: str, model: str, size: ChunkSize
    ) -> Version | Same:  # fmt: skip
        """The version that this run of the job makes: the same one however often it is called.

        Its document is the user's of that source. `Same` where the document's active version has that content, was cut
        to chunks of that size, and was embedded by that model.
        """
        ...

    async def partitioned(self, version: Version, *, chunks: int, batches: int, pages: int | None) -> Version:
        """All of it is cut. The version with both numbers; repeatable."""
        ...

    async def wanted(self, event: ChunksPrepared, *, model: str) -> BatchState:
        """Whether vectors of this batch are still to be made: asked before anything is paid for them.

        Raises:
            PermanentError: `document-model-changed`: its version was begun with vectors of another model.
        """
        ...

    async def storing(self, event: ChunksPrepared, *, collection: Collection) -> VersionState:
        """This batch's vectors are about to be stored there; what is not active has its vectors looked for there.

        Raises:
            PermanentError: `document-model-changed`: its version has vectors of another length.
        """
        ...

    async def embedded(self, event: ChunksPrepared) -> tuple[VersionState, DocumentProgress]:
        """This batch's vectors are stored: counted once for (version, batch).

        The state that the version is in then: neither `ingesting` nor `active`: what was stored is to be taken back.
        """
        ...

    async def finish(self, version_id: UUID) -> Version | None:
        """Make the version the active one where every batch is counted, in place of the one before, at once.

        None while any is missing; the version where it is active, or was replaced meanwhile. Of two versions the one
        whose job was accepted later stays; that of a job which has ended with an error does not become active.
        Repeatable.
        """
        ...

    async def progress(
        self, version_id: UUID, *, pages: int | None = None, pages_total: int | None = None
    ) -> DocumentProgress:
        """How far it is; with `pages`: so many were read meanwhile, of so many."""
        ...

    async def hidden(self, user_id: str) -> Sequence[UUID]:
        """The user's versions that have or may have vectors and are not to be seen: not active ones."""
        ...

    async def collections(self, user_id: str) -> Sequence[Collection]:
        """Those in which the user has active versions."""
        ...


# --- vectors ---


@dataclass(frozen=True, slots=True)
class EmbeddedChunk:
    """A chunk with its vector."""

    chunk: Chunk
    vector: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A chunk that fits. `score`: of the mode that was asked for (hybrid: of the fusion); `similarity`: the cosine of
    its vector and the query's, None where it was found by keywords only; `has_keyword`: a word of the query is in it.
    """

    document_id: UUID
    version_id: UUID
    source: str
    chunk: Chunk
    score: float
    similarity: float | None
    has_keyword: bool
    ingested_at: datetime | None = None


class VectorRepository(Protocol):
    """Chunks and their vectors. Every call names the user, and none sees or touches what is another user's.

    Every method raises RetryableError `vectors-unavailable` while the server is away, PermanentError where it refuses.
    """

    async def store(
        self, user_id: str, collection: Collection, *, document_id: UUID, version_id: UUID, source: str,
        chunks: Sequence[EmbeddedChunk],
    ) -> None:  # fmt: skip
        """Return once they are stored; the same ones may be stored again: ids are derived from version and index."""
        ...

    async def search(
        self, user_id: str, collection: Collection, *, query: str, vector: Sequence[float] | None, mode: SearchMode,
        limit: int, hidden: Sequence[UUID], among: Among | None = None,
    ) -> list[Found]:  # fmt: skip
        """The best, best first; none of the versions in `hidden`. `vector`: None for mode `keyword`."""
        ...

    async def delete_version(self, user_id: str, collection: Collection, version_id: UUID) -> None:
        """Return once nothing of it is left; of none there is nothing to do."""
        ...

    async def delete_document(self, user_id: str, document_id: UUID) -> None:
        """The same for all its versions, in all collections."""
        ...

    async def count(self, user_id: str, *, document_id: UUID | None = None) -> int:
        """Chunks of the user, or of one document; in all collections."""
        ...


# --- what is said on the way ---


class ChunkWriter(Protocol):
    """Publishes batches of chunks before their stage ends, so that a document of any length is never in memory."""

    async def write(self, event: ChunksPrepared) -> None:
        """Return once it is under way; waits while too many are. The same event has the same id."""
        ...

    async def flush(self) -> None:
        """Return once the brokers have all of them."""
        ...


class DocumentProgressWriter(Protocol):
    """Tells whoever waits how far a document is; what cannot be told is lost."""

    async def tell(self, job: Job, progress: DocumentProgress) -> None:
        """Tell it, unless the last word of this job is younger than half a second."""
        ...
