"""Chunks and their vectors in Qdrant; the only place from which it is asked, and that says whose points are meant.

See docs/vectors.md.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

from qdrant_client import AsyncQdrantClient, models

from processors.documents.document_ports import Collection, EmbeddedChunk, Found
from processors.errors import PermanentError
from schemas.events import Chunk
from schemas.requests import Among, SearchMode
from vectors.calls import MissingError, directly, failures
from vectors.fusion import CANDIDATES, fuse
from vectors.keywords import document_vector, query_vector
from vectors.naming import collection_name, is_ours, point_id

T = TypeVar("T")
DENSE, KEYWORD = "dense", "keyword"
SEARCH_TIMEOUT_S, WRITE_TIMEOUT_S = 5.0, 30.0
INDEXED = ("user_id", "version_id", "document_id", "source")


class Run(Protocol):
    """Runs what the client makes: `directly`, or in a thread."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> Coroutine[Any, Any, T]:
        """What it returns."""
        ...


class QdrantRepository:
    """See `VectorRepository`. Every filter comes from `of_user`, so that none is without the user."""

    def __init__(
        self, client: AsyncQdrantClient, *, namespace: str = "", run: Run = directly,
        close: Callable[[], None] = lambda: None, indexes: bool = True, search_timeout_s: float | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        """What it asks.

        Args:
            client: From `vectors.opening`.
            namespace: Goes before the name of each collection, as the prefix of topics does.
            run: How its calls are run.
            close: Called once the client is closed.
            indexes: Local mode has none.
            search_timeout_s: Of what only reads; None: what a server has.
            clock: Says when a chunk was stored.
        """
        self._client, self._namespace, self._run = client, namespace, run
        self._close, self._clock, self._fields = close, clock, INDEXED if indexes else ()
        self._search_timeout_s = SEARCH_TIMEOUT_S if search_timeout_s is None else search_timeout_s
        self._made: set[str] = set()
        self._making = asyncio.Lock()

    # --- in ---

    async def store(
        self, user_id: str, collection: Collection, *, document_id: UUID, version_id: UUID, source: str,
        chunks: Sequence[EmbeddedChunk],
    ) -> None:  # fmt: skip
        """See `VectorRepository.store`."""
        for embedded in chunks:
            _check(embedded.vector, collection)
        if not chunks:
            return
        common = {
            "user_id": user_id, "document_id": str(document_id), "version_id": str(version_id), "source": source,
            "ingested_at": self._clock().isoformat(),
        }  # fmt: skip
        points = [
            models.PointStruct(
                id=point_id(user_id, version_id, embedded.chunk.index),
                vector=_vectors(embedded),
                payload={**common, "chunk": embedded.chunk.model_dump(mode="json", exclude_none=True)},
            )
            for embedded in chunks
        ]
        name = await self._ensured(collection)
        try:
            await self._written(self._client.upsert(name, points=points, wait=True))
        except MissingError:  # removed by hand since
            self._made.discard(name)
            name = await self._ensured(collection)
            await self._written(self._client.upsert(name, points=points, wait=True))

    async def _ensured(self, collection: Collection) -> str:
        """Its name, once it is there with its indexes."""
        name = collection_name(self._namespace, collection)
        async with self._making:
            if name not in self._made:
                if not await self._written(self._client.collection_exists(name)):
                    await self._create(name, collection)
                for field in self._fields:  # repeatable: of two who make it at once, none goes ahead without them
                    kind = models.KeywordIndexType.KEYWORD
                    schema = models.KeywordIndexParams(type=kind, is_tenant=field == "user_id")
                    await self._written(self._client.create_payload_index(name, field, field_schema=schema, wait=True))
                self._made.add(name)
        return name

    async def _create(self, name: str, collection: Collection) -> None:
        dense = models.VectorParams(size=collection.dimensions, distance=models.Distance.COSINE)
        # No graph over everybody's points, which no search asks for; one for each user instead.
        graphs = models.HnswConfigDiff(m=0, payload_m=16)
        try:
            await self._written(
                self._client.create_collection(
                    name,
                    vectors_config={DENSE: dense},
                    sparse_vectors_config={KEYWORD: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                    hnsw_config=graphs,
                )
            )
        except (PermanentError, ValueError):  # somebody was quicker: 400 or 409 of a server, ValueError of local mode
            if not await self._written(self._client.collection_exists(name)):
                raise

    # --- out ---

    async def search(
        self, user_id: str, collection: Collection, *, query: str, vector: Sequence[float] | None, mode: SearchMode,
        limit: int, hidden: Sequence[UUID], among: Among | None = None,
    ) -> list[Found]:  # fmt: skip
        """See `VectorRepository.search`."""
        if mode != "keyword":
            if vector is None:
                raise PermanentError("vectors-no-vector", f"a search of mode {mode} needs the query's vector")
            _check(vector, collection)
        name = collection_name(self._namespace, collection)
        words = query_vector(query)
        seen = of_user(user_id, hidden=hidden, among=among)
        depth = limit if mode != "hybrid" else max(limit * 3, CANDIDATES)
        asked: dict[str, models.QueryRequest] = {}
        if mode != "keyword":
            asked[DENSE] = models.QueryRequest(
                query=list(vector or ()), using=DENSE, filter=seen, limit=depth, with_payload=True
            )
        if mode != "dense" and words.indices:
            asked[KEYWORD] = models.QueryRequest(
                query=models.SparseVector(indices=list(words.indices), values=list(words.values)), using=KEYWORD,
                filter=seen, limit=depth, with_payload=True,
                # How rare a word is, is told by the user's own documents: others' say nothing, and are not told of.
                params=models.SearchParams(idf=models.IdfCorpusParams(corpus=of_user(user_id))),
            )  # fmt: skip
        if not asked or limit < 1 or not await self._is_there(name):
            return []
        try:
            replies = await self._searched(self._client.query_batch_points(name, requests=list(asked.values())))
        except MissingError:
            self._made.discard(name)
            return []
        lists = {way: reply.points for way, reply in zip(asked, replies, strict=True)}
        return fuse(
            lists.get(DENSE, []), lists.get(KEYWORD, []), mode=mode, limit=limit, words=frozenset(words.indices),
            read=_found,
        )  # fmt: skip

    async def _is_there(self, name: str) -> bool:
        return name in self._made or await self._searched(self._client.collection_exists(name))

    async def count(self, user_id: str, *, document_id: UUID | None = None) -> int:
        """See `VectorRepository.count`."""
        seen = of_user(user_id, document_id=document_id)
        total = 0
        for name in await self._collections():
            try:
                total += (await self._searched(self._client.count(name, count_filter=seen, exact=True))).count
            except MissingError:
                continue
        return total

    # --- away ---

    async def delete_version(self, user_id: str, collection: Collection, version_id: UUID) -> None:
        """See `VectorRepository.delete_version`."""
        name = collection_name(self._namespace, collection)
        if await self._is_there(name):
            await self._delete(name, of_user(user_id, version_id=version_id))

    async def delete_document(self, user_id: str, document_id: UUID) -> None:
        """See `VectorRepository.delete_document`."""
        for name in await self._collections():
            await self._delete(name, of_user(user_id, document_id=document_id))

    async def _delete(self, name: str, which: models.Filter) -> None:
        try:
            await self._written(
                self._client.delete(name, points_selector=models.FilterSelector(filter=which), wait=True)
            )
        except MissingError:
            self._made.discard(name)

    async def _collections(self) -> list[str]:
        found = await self._searched(self._client.get_collections())
        return sorted(one.name for one in found.collections if is_ours(self._namespace, one.name))

    # --- how it is asked ---

    async def answers(self) -> None:
        """Return where it does; raises as all else does."""
        await self._searched(self._client.get_collections())

    async def close(self) -> None:
        """Close its connections, or its folder."""
        await self._run(self._client.close())
        self._close()

    async def _searched(self, call: Coroutine[Any, Any, T]) -> T:
        async with failures(self._search_timeout_s):
            return await self._run(call)

    async def _written(self, call: Coroutine[Any, Any, T]) -> T:
        async with failures(WRITE_TIMEOUT_S):
            return await self._run(call)


def of_user(
    user_id: str, *, hidden: Sequence[UUID] = (), among: Among | None = None, document_id: UUID | None = None,
    version_id: UUID | None = None,
) -> models.Filter:  # fmt: skip
    """The user's points, or some of them; never anybody else's.

    `hidden`: not those of these versions; `among`: those of any of these sources or documents.
    """
    must: list[Any] = [_is("user_id", user_id)]
    if document_id is not None:
        must.append(_is("document_id", str(document_id)))
    if version_id is not None:
        must.append(_is("version_id", str(version_id)))
    if among is not None and (among.sources or among.documents):
        any_of: list[Any] = []
        if among.sources:
            any_of.append(_is_any("source", list(among.sources)))
        if among.documents:
            any_of.append(_is_any("document_id", [str(one) for one in among.documents]))
        must.append(models.Filter(should=any_of))
    unseen: list[Any] | None = [_is_any("version_id", [str(one) for one in hidden])] if hidden else None
    return models.Filter(must=must, must_not=unseen)


def _is(key: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def _is_any(key: str, values: list[str]) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchAny(any=values))


def _vectors(embedded: EmbeddedChunk) -> dict[str, Any]:
    words = document_vector(embedded.chunk.text)
    vectors: dict[str, Any] = {DENSE: list(embedded.vector)}
    if words.indices:  # a chunk of signs only has none
        vectors[KEYWORD] = models.SparseVector(indices=list(words.indices), values=list(words.values))
    return vectors


def _check(vector: Sequence[float], collection: Collection) -> None:
    if len(vector) != collection.dimensions:
        raise PermanentError(
            "vectors-dimensions",
            f"a vector of {len(vector)} numbers does not fit those of {collection.provider}/{collection.model}, "
            f"which have {collection.dimensions}",
        )


def _found(payload: dict[str, Any], *, score: float, similarity: float | None, has_keyword: bool) -> Found:
    return Found(
        document_id=UUID(payload["document_id"]), version_id=UUID(payload["version_id"]), source=payload["source"],
        chunk=Chunk.model_validate(payload["chunk"]), score=score, similarity=similarity, has_keyword=has_keyword,
        ingested_at=datetime.fromisoformat(payload["ingested_at"]),
    )  # fmt: skip
