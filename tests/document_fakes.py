"""Stand-ins of the ports of documents, which say what was asked of them."""

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from processors.documents.document_ports import (
    Block,
    ChunkSize,
    Collection,
    DocumentLedger,
    EmbeddedChunk,
    HeldFile,
    Pages,
    Same,
    Version,
)
from processors.errors import PermanentError
from processors.ports import Embeddings
from schemas.events import Chunk, ChunksPrepared, DocumentProgress, Job
from schemas.requests import DocumentReference
from tests.factories import chunk

HELD = HeldFile(Path("/nowhere"), 4, "a" * 64, "text/plain")
DELETED = "document-deleted"


class FakeFiles:
    """`held`: what there is; None: nothing."""

    def __init__(self, file: HeldFile | None = HELD) -> None:
        self._file = file
        self.asked: list[tuple[UUID, str]] = []

    @contextlib.asynccontextmanager
    async def held(self, reference: DocumentReference, *, user_id: str) -> AsyncIterator[HeldFile | None]:
        self.asked.append((reference.payload_id, user_id))
        yield self._file


class FakeParser:
    """A document of so many pages with so many lines each; or what is wrong with it, after the pages."""

    def __init__(self, pages: int = 1, lines: int = 1, *, error: Exception | None = None) -> None:
        self._pages, self._lines, self._error = pages, lines, error

    async def parse(self, path: Path) -> AsyncIterator[Pages]:
        for page in range(1, self._pages + 1):
            blocks = tuple(Block(f"page {page} line {line}", page) for line in range(self._lines))
            yield Pages(blocks, page, self._pages)
        if self._error is not None:
            raise self._error


class LineChunker:
    """A chunk for each block, told with the block after it."""

    def __init__(self, provider: str = "", size: ChunkSize | None = None) -> None:
        self.size = size
        self._waiting: list[Block] = []
        self._next = 0

    def feed(self, pages: Pages) -> list[Chunk]:
        self._waiting += pages.blocks
        done, self._waiting = self._waiting[:-1], self._waiting[-1:]
        return self._cut(done)

    def finish(self) -> list[Chunk]:
        return self._cut(self._waiting)

    def _cut(self, blocks: Sequence[Block]) -> list[Chunk]:
        found = [chunk(self._next + n, text=block.text, page=block.page) for n, block in enumerate(blocks)]
        self._next += len(found)
        return found


class FakeEmbedder:
    """A vector of each text. `error`: raised at the next call."""

    name = "openai"

    def __init__(self, model: str = "m1", *, dimensions: int = 4) -> None:
        self.embedding_model, self._dimensions = model, dimensions
        self.calls: list[list[str]] = []
        self.error: Exception | None = None

    async def embed(self, texts: Sequence[str], *, purpose: str, timeout_s: float) -> Embeddings:
        assert purpose == "passage"
        assert timeout_s == 300.0  # of one call, not of the whole step
        self.calls.append(list(texts))
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        vectors = tuple((float(len(text)), *[0.5] * (self._dimensions - 1)) for text in texts)
        return Embeddings(vectors, self.embedding_model, len(texts))


class FakeVectors:
    """`stored`: by version, by chunk; `deleted`: versions. `on_store`: called before anything is."""

    def __init__(self) -> None:
        self.stored: dict[UUID, dict[int, EmbeddedChunk]] = defaultdict(dict)
        self.deleted: list[tuple[str, Collection, UUID]] = []
        self.collections: set[Collection] = set()
        self.on_store: Callable[[], Any] = lambda: None

    async def store(
        self, user_id: str, collection: Collection, *, document_id: UUID, version_id: UUID, source: str,
        chunks: Sequence[EmbeddedChunk],
    ) -> None:  # fmt: skip
        self.on_store()
        self.collections.add(collection)
        self.stored[version_id].update({one.chunk.index: one for one in chunks})

    async def delete_version(self, user_id: str, collection: Collection, version_id: UUID) -> None:
        self.deleted.append((user_id, collection, version_id))
        self.stored.pop(version_id, None)


class FakeWriter:
    """`written`: what was; `flushed`: how many of them were waited for."""

    def __init__(self) -> None:
        self.written: list[ChunksPrepared] = []
        self.flushed = 0

    async def write(self, event: ChunksPrepared) -> None:
        self.written.append(event)

    async def flush(self) -> None:
        self.flushed = len(self.written)


class FakeTeller:
    """`told`: all of it."""

    def __init__(self) -> None:
        self.told: list[DocumentProgress] = []

    async def tell(self, job: Job, progress: DocumentProgress) -> None:
        self.told.append(progress)


class MemoryLedger(DocumentLedger):
    """One version, in memory. `state`: to be set by tests; `same`: what `begin` answers; the real one is in `sinks`."""

    def __init__(self, *, same: Same | None = None, batches: int | None = None) -> None:
        self.same, self.state, self.model = same, "ingesting", "m1"
        self.version = Version(uuid4(), uuid4(), "alice", "handbook.pdf", batches=batches)
        self.counted: dict[int, int] = {}
        self.begun: dict[str, Any] = {}
        self.pages: tuple[int | None, int | None] = (None, None)

    async def begin(self, job: Job, **more: Any) -> Version | Same:
        self._check()
        self.begun = more
        return self.same or self.version

    async def partitioned(self, version: Version, *, chunks: int, batches: int, pages: int | None) -> Version:
        self._check()
        self.version = Version(
            version.document_id, version.version_id, version.user_id, version.source, "ingesting", pages, chunks,
            batches,
        )  # fmt: skip
        return self.version

    async def wanted(self, event: ChunksPrepared, *, model: str) -> Any:
        if self.model != model:
            raise PermanentError("document-model-changed", "another model")
        if self.state != "ingesting":
            return "counted" if self.state == "active" else self.state
        return "counted" if event.batch in self.counted else "wanted"

    async def storing(self, event: ChunksPrepared, *, collection: Collection) -> Any:
        return self.state

    async def embedded(self, event: ChunksPrepared) -> Any:
        if self.state == "ingesting":
            self.counted.setdefault(event.batch, len(event.chunks))
        return self.state, DocumentProgress(chunks=sum(self.counted.values()))

    async def finish(self, version_id: UUID) -> Version | None:
        self._check()
        if self.version.batches is None or len(self.counted) < self.version.batches:
            return None
        self.state = "active"
        return self.version

    async def progress(
        self, version_id: UUID, *, pages: int | None = None, pages_total: int | None = None
    ) -> DocumentProgress:
        self._check()
        self.pages = pages, pages_total
        return DocumentProgress(pages=pages or 0, pages_total=pages_total)

    async def hidden(self, user_id: str) -> list[UUID]:
        return []

    async def collections(self, user_id: str) -> list[Collection]:
        return []

    def _check(self) -> None:
        if self.state == "deleted":
            raise PermanentError(DELETED, "it was deleted")
