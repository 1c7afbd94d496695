"""`vectors`: for every test that names it, once with each engine under the repository."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from embedded.running import Running
from embedded.services import start_vectors
from processors.documents.document_ports import Collection, EmbeddedChunk, Found
from schemas.events import Chunk
from vectors.opening import open_folder, open_server
from vectors.qdrant import QdrantRepository

KEY = "a-key-for-tests"
COLLECTION = Collection("local", "multilingual-e5-small", 4)
VERSION = UUID("00000000-0000-4000-8000-000000000001")
DOCUMENT = UUID("00000000-0000-4000-8000-00000000000d")


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Ours, over Qdrant's engine."""
    running = start_vectors(tmp_path_factory.mktemp("vectors"), api_key=KEY)
    yield running
    running.stop()


@pytest.fixture(params=["local mode", "server"])
def open_vectors(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], QdrantRepository]:
    if request.param == "local mode":
        return lambda: open_folder(tmp_path / "vectors")
    running: Running = request.getfixturevalue("server")
    namespace = f"t{uuid4().hex[:8]}."
    return lambda: open_server(running.url, api_key=KEY, cacert=None, namespace=namespace)


@pytest.fixture
async def vectors(open_vectors: Callable[[], QdrantRepository]) -> AsyncIterator[QdrantRepository]:
    repository = open_vectors()
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
