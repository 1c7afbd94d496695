"""Stand-ins of ports, which say what was asked of them."""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self
from uuid import UUID, uuid4

from processors.documents.document_ports import Collection, EmbeddedChunk, Found, VersionState
from processors.ports import EmbeddingPurpose, Embeddings, Execution
from schemas.events import Job, StreamedRange
from schemas.requests import Among, SearchMode


class FakeExecution:
    """One try at an answer. `ended`: what `end` was given; `left`: it is over."""

    def __init__(self, max_chars: int, told: StreamedRange | None) -> None:
        self.max_chars, self._told = max_chars, told
        self.pieces: list[str] = []
        self.ended: str | None = None
        self.left = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.left = True

    @property
    def has_begun(self) -> bool:
        return bool(self.pieces)

    async def tell(self, text: str) -> None:
        self.pieces.append(text)

    async def end(self, text: str) -> StreamedRange | None:
        self.ended = text
        return self._told


class FakeDeltas:
    """Keeps what it is told. `told`: what `end` answers."""

    def __init__(self, told: StreamedRange | None = None) -> None:
        self._told = told
        self.executions: list[FakeExecution] = []

    def execution(self, job: Job, *, max_chars: int) -> FakeExecution:
        self.executions.append(FakeExecution(max_chars, self._told))
        return self.executions[-1]


class OpenGuard:
    """Keeps nobody away."""

    def calling(self, execution: Execution) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()


class FakeEmbeddings:
    """Makes the vectors that it is given, by text; of any other text one that is like none of them."""

    def __init__(
        self, vectors: Mapping[str, Sequence[float]], *, name: str = "local", model: str = "multilingual-e5-small"
    ) -> None:
        self.name, self.embedding_model = name, model
        self._vectors = vectors
        self.asked: list[tuple[tuple[str, ...], str]] = []
        self.error: Exception | None = None

    async def embed(self, texts: Sequence[str], *, purpose: EmbeddingPurpose, timeout_s: float) -> Embeddings:
        self.asked.append((tuple(texts), purpose))
        if self.error is not None:
            raise self.error
        vectors = tuple(tuple(self._vectors.get(text, (0.0, 0.0, 1.0))) for text in texts)
        return Embeddings(vectors, self.embedding_model, len(texts))


class MemoryVectors:
    """A `VectorRepository` in memory: the cosine, and which words of the query are there. `asked`: each search."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, Collection, UUID, int], tuple[UUID, str, EmbeddedChunk]] = {}
        self.asked: list[dict[str, Any]] = []
        self.on_search: Callable[[], None] = lambda: None

    async def store(
        self, user_id: str, collection: Collection, *, document_id: UUID, version_id: UUID, source: str,
        chunks: Sequence[EmbeddedChunk],
    ) -> None:  # fmt: skip
        for chunk in chunks:
            self.stored[user_id, collection, version_id, chunk.chunk.index] = (document_id, source, chunk)

    async def search(
        self, user_id: str, collection: Collection, *, query: str, vector: Sequence[float] | None, mode: SearchMode,
        limit: int, hidden: Sequence[UUID], among: Among | None = None,
    ) -> list[Found]:  # fmt: skip
        self.asked.append({"mode": mode, "limit": limit, "hidden": tuple(hidden), "vector": vector, "among": among})
        found = []
        words = set(re.findall(r"\w{3,}", query.casefold()))
        for (owner, where, version_id, _), (document_id, source, chunk) in self.stored.items():
            if owner != user_id or where != collection or version_id in hidden:
                continue
            if among is not None and among.sources is not None and source not in among.sources:
                continue
            if among is not None and among.documents is not None and document_id not in among.documents:
                continue
            similarity = sum(one * other for one, other in zip(vector, chunk.vector, strict=True)) if vector else None
            has_keyword = bool(words & set(re.findall(r"\w{3,}", chunk.chunk.text.casefold())))
            score = float(has_keyword) if mode == "keyword" else (similarity or 0.0)
            if mode != "keyword" or has_keyword:
                found.append(Found(document_id, version_id, source, chunk.chunk, score, similarity, has_keyword))
        found.sort(key=lambda one: -one.score)
        self.on_search()
        return found[:limit]

    async def delete_version(self, user_id: str, collection: Collection, version_id: UUID) -> None:
        self._delete(lambda key, _: key[:3] == (user_id, collection, version_id))

    async def delete_document(self, user_id: str, document_id: UUID) -> None:
        self._delete(lambda key, document: key[0] == user_id and document == document_id)

    async def count(self, user_id: str, *, document_id: UUID | None = None) -> int:
        return sum(
            key[0] == user_id and document_id in (None, found[0]) for key, found in self.stored.items()
        )  # fmt: skip

    def _delete(self, is_meant: Callable[[tuple[str, Collection, UUID, int], UUID], bool]) -> None:
        for key in [key for key, found in self.stored.items() if is_meant(key, found[0])]:
            del self.stored[key]


class MemoryDocuments:
    """What retrieval asks of a `DocumentLedger`, in memory: which versions are active, and where they lie."""

    def __init__(self) -> None:
        self.versions: dict[UUID, tuple[str, Collection, VersionState]] = {}
        self.error: Exception | None = None

    def add(self, user_id: str, collection: Collection, state: VersionState = "active") -> UUID:
        version_id = uuid4()
        self.versions[version_id] = (user_id, collection, state)
        return version_id

    def set(self, version_id: UUID, state: VersionState) -> None:
        user_id, collection, _ = self.versions[version_id]
        self.versions[version_id] = (user_id, collection, state)

    async def hidden(self, user_id: str) -> Sequence[UUID]:
        return [one for one, (owner, _, state) in self.versions.items() if owner == user_id and state != "active"]

    async def collections(self, user_id: str) -> Sequence[Collection]:
        if self.error is not None:
            raise self.error
        found = [where for owner, where, state in self.versions.values() if owner == user_id and state == "active"]
        return list(dict.fromkeys(found))
