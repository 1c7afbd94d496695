"""The vector server: by Qdrant's own client, over its engine, and through what happens to processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from embedded.ports import free_port
from embedded.running import Running
from embedded.services import start_vectors
from embedded.vector_server import MAX_BODY_BYTES
from processors.errors import PermanentError, RetryableError
from tests.deployment import ROOT, plain_client
from tests.vectors.conftest import COLLECTION, search, store, texts
from tests.waiting import until
from vectors.naming import collection_name
from vectors.opening import open_server

DENSE = {"dense": models.VectorParams(size=2, distance=models.Distance.COSINE)}


class Server:
    """Ours, to be killed and started again on its port and folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._port = folder, free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def _spawn(self) -> None:
        command = [sys.executable, "-m", "embedded.vector_server", "--port", str(self._port), "--path"]
        command.append(str(self.folder))
        self._process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "QDRANT_API_KEY": "the-key"})

    async def start(self) -> None:
        self._spawn()

        async def is_ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None
            async with plain_client(timeout=5) as client:
                with suppress(httpx.HTTPError):
                    return (await client.get(f"{self.url}/readyz")).status_code == 200
            return False

        await until(is_ready)

    def end(self, by: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(by)
            self._process.wait(30)
            self._process = None


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path / "vectors")
    await server.start()
    yield server
    server.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """For tests that leave it as it is."""
    running = start_vectors(tmp_path_factory.mktemp("vectors"), api_key="the-key")
    yield running
    running.stop()


@pytest.fixture
async def client(server: Running) -> AsyncIterator[AsyncQdrantClient]:
    async with plain_client() as http:  # the warning of a key without TLS is not what this is about
        assert (await http.get(f"{server.url}/collections")).status_code == 401
        assert (await http.get(f"{server.url}/readyz")).status_code == 200
    client = AsyncQdrantClient(server.url, metadata={"api-key": "the-key"}, check_compatibility=False)
    yield client
    for one in (await client.get_collections()).collections:
        await client.delete_collection(one.name)
    await client.close()


async def test_qdrants_own_client_can_talk_to_it(client: AsyncQdrantClient) -> None:
    assert (await client.info()).version
    await client.create_collection(
        "c", vectors_config=DENSE, hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
        sparse_vectors_config={"keyword": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )  # fmt: skip
    tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    await client.create_payload_index("c", "user_id", field_schema=tenant)
    await client.create_payload_index("c", "source", field_schema=models.PayloadSchemaType.KEYWORD)
    ids = [str(uuid4()) for _ in range(3)]
    points = [
        models.PointStruct(
            id=point_id, payload={"user_id": "alice", "n": n},
            vector={"dense": [1.0, n], "keyword": models.SparseVector(indices=[n, 2**32 - 1], values=[1.5, 1.0])},
        )
        for n, point_id in enumerate(ids)
    ]  # fmt: skip
    await client.upsert("c", points=points)
    info = await client.get_collection("c")
    assert (info.points_count, info.config.hnsw_config.m, info.config.hnsw_config.payload_m) == (3, 0, 16)
    assert info.payload_schema["user_id"].params == tenant
    assert [one.name for one in (await client.get_collections()).collections] == ["c"]
    nearest = await client.query_points("c", query=[1.0, 0.0], using="dense", limit=2, with_vectors=True)
    assert [point.payload for point in nearest.points] == [{"user_id": "alice", "n": 0}, {"user_id": "alice", "n": 1}]
    assert nearest.points[0].score == pytest.approx(1.0)
    assert nearest.points[0].vector["keyword"].indices == [0, 2**32 - 1]  # type: ignore[index,union-attr,call-overload]  # by its name
    by_word = await client.query_points(
        "c", query=models.SparseVector(indices=[2], values=[1.0]), using="keyword", with_payload=["n"]
    )
    assert [point.payload for point in by_word.points] == [{"n": 2}]
    page, after = await client.scroll("c", limit=2)
    rest, end = await client.scroll("c", limit=2, offset=after)
    assert sorted(str(point.id) for point in [*page, *rest]) == sorted(ids)
    assert end is None
    await client.delete("c", points_selector=models.PointIdsList(points=[ids[0]]))
    not_two = models.Filter(must_not=[models.FieldCondition(key="n", match=models.MatchValue(value=2))])
    await client.delete("c", points_selector=models.FilterSelector(filter=not_two))
    assert (await client.count("c")).count == 1
    assert await client.delete_collection("c")
    assert not await client.collection_exists("c")


@pytest.mark.parametrize(
    ("call", "status", "names"),
    [
        (lambda c: c.get_collection("none"), 404, "none"),
        (lambda c: c.count("none"), 404, "none"),
        (lambda c: c.create_collection("c", vectors_config=DENSE), 409, "already exists"),
        (lambda c: c.create_collection("a b", vectors_config=DENSE), 400, "name"),
        (lambda c: c.create_collection("d", vectors_config=DENSE["dense"]), 501, "names only"),
        (lambda c: c.create_collection("d", vectors_config=DENSE, on_disk_payload=True), 501, "on_disk_payload"),
        (lambda c: c.create_payload_index("c", "n", field_schema="integer"), 501, "keyword indexes"),
        (lambda c: c.query_points("c", prefetch=[models.Prefetch(query=[1.0, 0.0], using="dense")],
                                  query=models.FusionQuery(fusion=models.Fusion.RRF)), 501, "prefetch"),
        (lambda c: c.query_points("c", query=models.SampleQuery(sample=models.Sample.RANDOM)), 501, "one vector"),
        (lambda c: c.query_points("c", query=[1.0, 0.0], using="dense", limit=10_001), 400, "10000"),
        (lambda c: c.query_points("c", query=[1.0], using="dense"), 400, "dim"),
        (lambda c: c.query_points("c", query=[1.0, 0.0], using="nope"), 400, "nope"),
        (lambda c: c.query_points("c", query=[1.0, 0.0], using="dense", query_filter=models.Filter(must=[
            models.FieldCondition(key="n", range=models.Range(gte=1))])), 501, "range"),
        (lambda c: c.query_points("c", query=[1.0, 0.0], using="dense",
                                  search_params=models.SearchParams(hnsw_ef=3)), 501, "hnsw_ef"),
        (lambda c: c.count("c", exact=True, count_filter=models.Filter(must=[
            models.IsEmptyCondition(is_empty=models.PayloadField(key="n"))])), 501, "IsEmptyCondition"),
        (lambda c: c.set_payload("c", payload={"n": 1}, points=[1]), 501, "payload"),
        (lambda c: c.facet("c", key="n"), 501, "facet"),
        (lambda c: c.upsert("c", points=[models.PointStruct(id=1, vector={"dense": [1.0]})]), 400, "dim"),
        (lambda c: c.upsert("c", points=[models.PointStruct(id=1, vector=[1.0, 0.0])]), 501, "names only"),
        (lambda c: c.upsert("c", points=[models.PointStruct(id=1, vector={"nope": [1.0]})]), 400, "nope"),
    ],
)  # fmt: skip
async def test_what_it_does_not_know_it_refuses_by_name(
    client: AsyncQdrantClient, call: Any, status: int, names: str
) -> None:
    await client.create_collection("c", vectors_config=DENSE)
    with pytest.raises(UnexpectedResponse) as raised:
        await call(client)
    assert raised.value.status_code == status, raised.value
    assert names in str(raised.value.structured()["status"]["error"])


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"points": 7}', b'{"points": [{"id": "x", "vector": {"dense": [1, 0]}}]}',
             b'{"points": [{"id": 1, "vector": {"dense": ["a", 0]}}]}',
             b'{"points": [{"id": 1, "vector": {"dense": [1e999, 0]}}]}',
             b'{"points": [{"id": 1, "vector": {"keyword": {"indices": [1, 1], "values": [1, 1]}}}]}',
             b'{"points": [{"id": 1, "vector": {"keyword": {"indices": [-1], "values": [1]}}}]}'],
)  # fmt: skip
async def test_garbage_is_refused_and_nothing_of_it_is_stored(
    client: AsyncQdrantClient, server: Running, body: bytes
) -> None:
    sparse = {"keyword": models.SparseVectorParams()}
    await client.create_collection("c", vectors_config=DENSE, sparse_vectors_config=sparse)
    async with plain_client(headers={"api-key": "the-key"}) as http:
        reply = await http.put(f"{server.url}/collections/c/points", content=body)
    assert 400 <= reply.status_code < 500, reply.text
    assert (await client.count("c")).count == 0


async def test_a_body_is_bounded_and_the_key_is_asked_for(server: Running) -> None:
    async def huge() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 1_048_576 + 2):
            yield b" " * 1_048_576

    async with plain_client(headers={"api-key": "the-key"}, timeout=30) as http:
        try:
            reply = await http.put(f"{server.url}/collections/c/points", content=huge())
            assert reply.status_code == 413
        except httpx.WriteError:  # it hung up in the middle
            pass
        for key in ("", "the-ke", "the-key2", "THE-KEY"):
            reply = await http.get(f"{server.url}/collections", headers={"api-key": key})
            assert reply.status_code == 401
        unknown = await http.get(f"{server.url}/collections?consistency=all")
        assert unknown.status_code == 501


async def test_what_was_acknowledged_outlives_a_kill(own_server: Server) -> None:
    """Five times over, each kill right behind the acknowledgement."""
    repository = open_server(own_server.url, api_key="the-key", cacert=None)
    stored = 0
    for turn in range(5):
        version_id = await store(repository, "alice", *[f"chunk {turn} {n}" for n in range(20)])
        stored += 20
        if turn % 2:
            await repository.delete_version("alice", COLLECTION, version_id)
            stored -= 20
        own_server.end(signal.SIGKILL)
        with pytest.raises(RetryableError) as raised:
            await repository.count("alice")
        assert raised.value.code == "vectors-unavailable"
        await own_server.start()
        assert await repository.count("alice") == stored
    assert texts(await search(repository, "alice", "chunk 0 7", limit=1))[0].startswith("chunk")
    await repository.close()


async def test_what_is_there_stays_over_an_orderly_end(own_server: Server) -> None:
    repository = open_server(own_server.url, api_key="the-key", cacert=None)
    await store(repository, "alice", "one dog", "two cats")
    before = await search(repository, "alice", "dog")
    own_server.end(signal.SIGTERM)
    await own_server.start()
    assert await search(repository, "alice", "dog") == before
    await repository.close()


async def test_a_wrong_key_is_a_refusal(server: Running) -> None:
    repository = open_server(server.url, api_key="another", cacert=None)
    with pytest.raises(PermanentError) as raised:
        await repository.count("alice")
    assert raised.value.code == "vectors-http-401"
    await repository.close()


async def test_a_collection_that_was_removed_by_hand_is_made_again(server: Running, client: AsyncQdrantClient) -> None:
    repository = open_server(server.url, api_key="the-key", cacert=None)
    await store(repository, "alice", "one")
    await client.delete_collection(collection_name("", COLLECTION))
    assert await search(repository, "alice", "one") == []
    await store(repository, "alice", "two")
    await client.delete_collection(collection_name("", COLLECTION))
    await store(repository, "alice", "three")
    assert texts(await search(repository, "alice", "three")) == ["three"]
    await repository.close()


async def test_its_collections_are_made_for_many_users(server: Running, client: AsyncQdrantClient) -> None:
    repository = open_server(server.url, api_key="the-key", cacert=None)
    await store(repository, "alice", "one")
    info = await client.get_collection(collection_name("", COLLECTION))
    assert (info.config.hnsw_config.m, info.config.hnsw_config.payload_m) == (0, 16)
    assert set(info.payload_schema) == {"user_id", "version_id", "document_id", "source"}
    assert info.payload_schema["user_id"].params.is_tenant is True  # type: ignore[union-attr]  # it has some
    await repository.close()


async def test_a_folder_has_one_server(own_server: Server) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "embedded.vector_server", "--port", "1", "--path", str(own_server.folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "another process" in done.stderr
