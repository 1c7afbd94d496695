"""Documents through the whole product: ways in, versions, deletion, cancelling, kill -9 of worker and vectors."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from embedded.running import Running
from embedded.services import start_vectors
from processors.documents.document_ports import Collection
from schemas.ids import direct_job_id
from sinks.documents import PostgresDocuments
from sinks.pool import Pool
from tests.deployment import Deployment, Process, client_of, register
from tests.pipeline.test_direct import SOURCE, cloud_event
from tests.pipeline.test_images import ended
from tests.pipeline.test_rest import problem
from tests.sse import Sse
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until
from vectors.opening import open_server
from vectors.qdrant import QdrantRepository

pytestmark = pytest.mark.integration
COLLECTION = Collection("openai", "text-embedding-3-small", 4)


def text(word: str, paragraphs: int) -> bytes:
    """A document with a chunk for each paragraph, and the word in each of them."""
    return "\n\n".join(f"Paragraph {n} tells of {word}. {'It goes on. ' * 14}" for n in range(paragraphs)).encode()


class Embedder(OpenAIStandIn):
    """Holds calls for vectors once it `may` make no more of them. `texts`: how many it was given, or is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.texts, self.may = 0, 1_000_000

    async def before_other(self, path: str, body: dict[str, Any]) -> None:
        if path == "/v1/embeddings":
            self.texts += len(body["input"])
            while self.texts > self.may:
                await asyncio.sleep(0.02)

    def hold_after(self, texts: int) -> None:
        self.may = self.texts + texts

    def release(self) -> None:
        self.may = 1_000_000


@pytest.fixture
async def api() -> AsyncIterator[Embedder]:
    async with Embedder() as api:
        yield api


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start_vectors(tmp_path_factory.mktemp("vectors"))
    yield running
    running.stop()


@pytest.fixture
async def vectors(deployment: Deployment, server: Running) -> AsyncIterator[QdrantRepository]:
    """Those of this deployment."""
    deployment.environment |= {
        "QDRANT_URL": server.url, "MAX_CHUNK_TOKENS": "64", "CHUNK_OVERLAP_TOKENS": "0", "MAX_UPLOAD_MB": "2",
        "EMBEDDING_PROVIDER": "openai",
    }  # fmt: skip
    repository = open_server(server.url, api_key=None, cacert=None, namespace=deployment.prefix)
    yield repository
    await repository.close()


@pytest.fixture
async def ingress(deployment: Deployment, vectors: QdrantRepository) -> Process:
    """With all workers but that of documents."""
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    return ingress


async def ingestion(deployment: Deployment) -> Process:
    worker = deployment.worker("ingestion", WORKER_ID="ingestion", EMBEDDING_CONCURRENCY="1")
    await deployment.ready(worker)
    return worker


async def ingest(client: httpx.AsyncClient, content: bytes, name: str = "notes.txt", **query: Any) -> httpx.Response:
    return await client.post("/ingestion/ingest", params=query, files={"file": (name, content)})


async def begun(client: httpx.AsyncClient, content: bytes, name: str = "notes.txt") -> str:
    reply = await ingest(client, content, name, wait=False)
    assert reply.status_code == 202, reply.text
    assert reply.headers["location"] == f"/jobs/{reply.json()['job_id']}"
    return str(reply.json()["job_id"])


async def counted(vectors: QdrantRepository, most: int, user_id: str = "root") -> bool:
    return await vectors.count(user_id) == most


async def chunks_told(client: httpx.AsyncClient, job_id: str) -> int:
    """Of a document that is under way, by polling its job."""
    view = (await client.get(f"/jobs/{job_id}")).json()
    assert view["status"] == "pending", view
    return int(view.get("document", {}).get("chunks", 0))


async def test_a_document_comes_in_by_rest_and_by_topic(
    deployment: Deployment, ingress: Process, vectors: QdrantRepository, api: Embedder
) -> None:
    await ingestion(deployment)
    async with client_of(ingress) as client:
        reply = await ingest(client, text("bees", 40), "C:\\private\\../notes.txt")
        assert reply.status_code == 200, reply.text
        made = reply.json()
        assert made["status"] == "ok"
        assert made["num_chunks"] == await vectors.count("root") >= 40
        # The same again is there already, whoever asks how.
        texts = api.texts
        again = (await ingest(client, text("bees", 40), "notes.txt")).json()
        assert (again["unchanged"], again["document_id"], again["num_chunks"]) == (
            True, made["document_id"], made["num_chunks"],
        )  # fmt: skip
        assert api.texts == texts
        keyed = [
            await client.post(
                "/ingestion/ingest?wait=false&source=keyed", files={"file": ("x", text("keys", 3))},
                headers={"idempotency-key": "1"},
            )
            for _ in range(2)
        ]  # fmt: skip
        assert keyed[0].json() == keyed[1].json()
        assert keyed[1].headers["idempotency-replayed"] == "true"
        assert (await ended(deployment, uuid.UUID(keyed[0].json()["job_id"])))["status"] == "completed"
        await by_topic(client, deployment)
        items = (await client.get("/documents")).json()["items"]
        assert [(item["source"], item["status"]) for item in items] == [
            ("by-topic.md", "ready"), ("keyed", "ready"), ("notes.txt", "ready")
        ]  # fmt: skip
        assert items[2] == {**items[2], "chunks": made["num_chunks"], "size": len(text("bees", 40)), "versions": 1,
                            "provider": "openai", "model": COLLECTION.model}  # fmt: skip
        await what_cannot_be_taken(client, deployment, vectors)


async def by_topic(client: httpx.AsyncClient, deployment: Deployment) -> None:
    reply = await client.post("/payloads", files={"file": ("x.md", b"# Nets\n\nNets are mended in winter.")})
    assert reply.status_code == 201, reply.text
    reference = reply.json()["document"]
    assert reference.keys() == {"payload_id", "size", "sha256"}
    mallory = await register(client, "mallory")
    row = await ended(deployment, await published_document(deployment, reference, user_id="mallory"))
    assert json.loads(row["error"])["code"] == "no-such-payload"
    row = await ended(deployment, await published_document(deployment, reference))
    assert json.loads(row["result"])["num_chunks"] == 1, row["error"]
    assert (await client.get("/documents", headers=mallory)).json() == {"items": [], "next": None}


async def published_document(deployment: Deployment, reference: Any, *, user_id: str = "root") -> uuid.UUID:
    """An event straight to the topic; its job."""
    event_id = str(uuid.uuid4())
    value = {"user_id": user_id, "kind": "document", "request": {"document": reference, "source": "by-topic.md"}}
    headers = [(name, told.encode()) for name, told in cloud_event(event_id).items()]
    await deployment.publish("job-requested", json.dumps(value).encode(), user_id.encode(), headers)
    return direct_job_id(SOURCE, user_id, event_id)


async def what_cannot_be_taken(
    client: httpx.AsyncClient, deployment: Deployment, vectors: QdrantRepository
) -> None:  # fmt: skip
    before = await vectors.count("root")
    for content, code in (
        (b"%PDF-1.7\nthere is nothing of a PDF in it", "document-unreadable"), (b"  \n ", "document-empty"),
        (b"\x7fELF\x02\x01\x01" + bytes(64), "document-type-unknown"),
    ):  # fmt: skip
        told = problem(await ingest(client, content, code), 422, code)
        assert told["job_id"]
    problem(await ingest(client, b"", "nothing"), 422, "document-empty")
    problem(await client.post("/ingestion/ingest", files={"other": ("x", b"x")}), 422, "invalid-body")
    problem(await client.post("/ingestion/ingest", json={}), 422, "invalid-body")
    problem(await ingest(client, b"x", provider="gemini"), 400, "no-such-provider")
    large = b"x" * (2 * 1_048_576 + 1)
    assert "MAX_UPLOAD_MB" in problem(await ingest(client, large), 413, "file-too-large")["detail"]

    async def chunked() -> AsyncIterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 65_536

    headers = {"content-type": "multipart/form-data; boundary=b"}
    problem(await client.post("/ingestion/ingest", content=chunked(), headers=headers), 413, "file-too-large")
    assert await vectors.count("root") == before

    async def told_of() -> Any:
        items = (await client.get("/documents")).json()["items"]
        failed = {item["source"]: item["error"]["code"] for item in items if item["status"] == "failed"}
        return len(items) == 6 and failed

    assert await until(told_of) == {code: code for code in await until(told_of)}


async def test_a_newer_version_replaces_the_older_one_at_once_and_a_deletion_leaves_nothing(
    deployment: Deployment, ingress: Process, vectors: QdrantRepository, api: Embedder
) -> None:
    await ingestion(deployment)
    pool = Pool(deployment.dsn, size=2)
    ledger = PostgresDocuments(pool)
    async with client_of(ingress) as client:
        first = (await ingest(client, text("bees", 100))).json()
        seen: list[set[str]] = []
        stop = asyncio.Event()

        async def search() -> None:
            while not stop.is_set():
                hidden = await ledger.hidden("root")
                found = await vectors.search(
                    "root", COLLECTION, query="paragraph", vector=(1.0, 0.25, -0.5, 0.0), mode="hybrid", limit=60,
                    hidden=hidden,
                )  # fmt: skip
                seen.append({str(one.version_id) for one in found})

        searching = asyncio.create_task(search())
        api.hold_after(70)
        ingesting = asyncio.create_task(ingest(client, text("nets", 100)))
        await until(lambda: api.texts > api.may)
        before = len(seen)
        await until(lambda: len(seen) > before + 3)  # when some of the second version is there
        api.release()
        second = (await ingesting).json()
        await until(lambda: seen[-1] == {second["version_id"]})
        stop.set()
        await searching
        assert second["document_id"] == first["document_id"]
        assert all(found in ({first["version_id"]}, {second["version_id"]}) for found in seen)
        assert {first["version_id"]} in seen
        assert await vectors.count("root") == first["num_chunks"] + second["num_chunks"]  # for those who search still
        shown = (await client.get(f"/documents/{first['document_id']}")).json()
        assert [version["state"] for version in shown["history"]] == ["active", "replaced"]
        # In the middle of its third version.
        job_id, _ = await in_the_middle(client, api, text("bears", 300))
        assert (await client.delete(f"/documents/{first['document_id']}")).status_code == 204
        assert await ledger.collections("root") == []
        api.release()
        row = await ended(deployment, uuid.UUID(job_id))
        assert json.loads(row["error"])["code"] == "document-deleted"
        await until(lambda: counted(vectors, 0))
        problem(await client.get(f"/documents/{first['document_id']}"), 404, "not-found")
        assert (await client.get("/documents")).json()["items"] == []
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM payloads") == 0
    await pool.close()


async def test_a_worker_that_is_killed_in_the_middle_of_a_document_doubles_and_loses_nothing(
    deployment: Deployment, ingress: Process, vectors: QdrantRepository, api: Embedder
) -> None:
    victim = await ingestion(deployment)
    async with client_of(ingress) as client:
        job_id, told = await in_the_middle(client, api)
        victim.kill()
        api.release()
        listening = asyncio.create_task(listened(client, job_id))
        await ingestion(deployment)
        row = await ended(deployment, uuid.UUID(job_id))
        assert row["status"] == "completed", row["error"]
        made = json.loads(row["result"])
        assert 0 < told < made["num_chunks"] == await vectors.count("root")
        assert made["num_chunks"] <= api.texts <= made["num_chunks"] + 3 * 32  # at most what was in hand is paid twice
        heard = await listening
        assert heard.body["result"]["document_id"] == made["document_id"]
        # And one that is cancelled in the middle leaves nothing.
        job_id, _ = await in_the_middle(client, api, text("nets", 160), "other.txt")
        assert (await client.post(f"/jobs/{job_id}/cancel")).status_code in (200, 202)
        assert json.loads((await ended(deployment, uuid.UUID(job_id)))["error"])["code"] == "cancelled"
        api.release()
        await until(lambda: counted(vectors, made["num_chunks"]))
        failed, ready = (await client.get("/documents")).json()["items"]
        assert (ready["status"], failed["status"], failed["error"]["code"]) == ("ready", "failed", "cancelled")


async def test_vectors_that_are_killed_and_come_back_lose_and_double_nothing(
    deployment: Deployment, ingress: Process, vectors: QdrantRepository, server: Running, api: Embedder
) -> None:
    deployment.environment["RETRY_LONG_FIRST_S"] = "1"
    await ingestion(deployment)
    await deployment.ready(deployment.worker("retrieval"))
    async with client_of(ingress) as client:
        first = (await ingest(client, text("nets", 40), "nets.txt")).json()
        job_id, told = await in_the_middle(client, api)
        server.kill()
        api.release()
        # Whoever searches is told what is missing; the document waits; and nobody else notices.
        problem(await client.get("/search/", params={"q": "nets"}), 503, "vectors-unavailable")
        problem(await client.post("/chat/rag", json={"question": "What of nets?"}), 503, "vectors-unavailable")
        waiting = await until(lambda: put_off(client, job_id))
        assert waiting["retry_at"]
        assert waiting["attempts"][-1]["code"] == "vectors-unavailable", waiting
        assert (await client.post("/chat/", json={"prompt": "Say hello."})).status_code == 200
        await asyncio.to_thread(server.start)
        row = await ended(deployment, uuid.UUID(job_id))
        assert row["status"] == "completed", row["error"]
        made = json.loads(row["result"])
        assert 0 < told < made["num_chunks"]
        assert await vectors.count("root") == made["num_chunks"] + first["num_chunks"]
        found = await client.get("/search/", params={"q": "nets", "mode": "keyword"})
        assert {one["source"] for one in found.json()["results"]} == {"nets.txt"}


async def in_the_middle(
    client: httpx.AsyncClient, api: Embedder, content: bytes = text("bees", 250), name: str = "notes.txt"
) -> tuple[str, int]:  # fmt: skip
    """A document of which some chunks are stored, while vectors of the next ones are waited for: its job, how many."""
    api.hold_after(70)
    job_id = await begun(client, content, name)
    await until(lambda: api.texts > api.may, within_s=60)
    return job_id, await until(lambda: chunks_told(client, job_id))


async def put_off(client: httpx.AsyncClient, job_id: str) -> dict[str, Any] | None:
    """What its job says while it waits for its next try."""
    view: dict[str, Any] = (await client.get(f"/jobs/{job_id}")).json()
    assert view["status"] == "pending", view
    return view if view.get("state") == "waiting" else None


async def listened(client: httpx.AsyncClient, job_id: str) -> Sse:
    sse = Sse()
    sse.job_id = job_id
    return await sse.to_the_end(client)
