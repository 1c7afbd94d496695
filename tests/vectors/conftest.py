"""`vectors`: for every test that names it, once with each engine under the repository."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from processors.document_ports import Collection, EmbeddedChunk, Found
from schemas.events import Chunk
from vectors.opening import open_folder
from vectors.qdrant import QdrantRepository

COLLECTION = Collection("local", "multilingual-e5-small", 4)
VERSION = UUID("00000000-0000-4000-8000-000000000001")
DOCUMENT = UUID("00000000-0000-4000-8000-00000000000d")


@pytest.fixture(params=["local mode"])
async def vectors(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[QdrantRepository]:
    repository = open_folder(tmp_path / "vectors")
    yield repository
    await repository.close()


def embedded(index: int, text: str, *vector: float) -> EmbeddedChunk:
    chunk = Chunk(index=index, text=text, start=index, end=index + len(text), tokens=len(text.split()), page=index + 1)
    return EmbeddedChunk(chunk, vector or (1.0, 0.0, 0.0, 0.0))


async def store(
    vectors: QdrantRepository, user_id: str, *texts: str | EmbeddedChunk, collection: Collection = COLLECTION,
    document_id: UUID | None = None, version_id: UUID | None = None, source: str = "notes.md",
) -> UUID:  # fmt: skip
    """The version under which they are."""
    version_id = version_id or uuid4()
    chunks = [text if isinstance(text, EmbeddedChunk) else embedded(n, text) for n, text in enumerate(texts)]
    await vectors.store(
        user_id, collection, document_id=document_id or uuid4(), version_id=version_id, source=source, chunks=chunks
    )
    return version_id


async def search(vectors: QdrantRepository, user_id: str, query: str = "", **given: object) -> list[Found]:
    asked = {
        "collection": COLLECTION, "query": query, "vector": (1.0, 0.0, 0.0, 0.0), "mode": "hybrid", "limit": 10,
        "hidden": (),
    }  # fmt: skip
    return await vectors.search(user_id, **(asked | given))  # type: ignore[arg-type]  # as the tests give them


def texts(found: Sequence[Found]) -> list[str]:
    return [one.chunk.text for one in found]
