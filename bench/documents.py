"""Ingestion: `python -m bench.documents [--pages 1000] [--letters 2100] [--documents 50] [--calls 200]`.

A long PDF from its upload to the last vector, beside the time that the embedding model takes for the same chunks by
itself, and the memory of every process meanwhile; then `POST /chat/` against a stub, alone and while many documents
are ingested at once. All of it on a real Kafka, Postgres, embedding model and the process `vectors`.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from bench.caller import Caller
from bench.measure import one_at_a_time
from bench.place import Place, place
from embedded.services import Running, start_embeddings, start_vectors
from parsing.parser import ChildParser
from processors.documents.chunk_document import MAX_CHUNKS_PER_BATCH, Chunker
from providers.token_counters import chunk_tokens, token_counter
from schemas.events import Chunk
from tests.deployment import Deployment, client_of
from tests.parsing.pdf_files import pdf_of

MODEL = "multilingual-e5-small"
LINE, MAX_TOKENS, OVERLAP = 95, 512, 64
WORDS = tuple(word for word in Path("docs/retrieval.md").read_text(encoding="utf-8").split() if word.isalpha())
GIVE_UP_S = 3 * 3600.0


@dataclass
class Peak:
    """The most of resident memory that was seen, by process, MB."""

    mb: dict[str, float] = field(default_factory=dict)

    def look(self, parents: dict[str, int]) -> None:
        for name, pid in parents.items():
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                for each in (process, *process.children(recursive=True)):
                    key = name if each.pid == pid else f"{name}'s parser"
                    self.mb[key] = max(self.mb.get(key, 0.0), each.memory_info().rss / 1e6)


def text_of(letters: int, chance: random.Random) -> str:
    """Sentences of our own words, in lines as they are printed."""
    lines: list[str] = []
    line = ""
    while len(lines) * LINE < letters:
        line += " ".join(chance.choices(WORDS, k=chance.randint(8, 24))).capitalize() + ". "
        while len(line) > LINE:
            cut = line.rfind(" ", 0, LINE)
            lines.append(line[:cut])
            line = line[cut + 1 :]
    return "\n".join(lines)


async def chunks_of(path: Path) -> list[Chunk]:
    """As the worker cuts it."""
    chunker = Chunker(
        counter=token_counter("local"), max_tokens=chunk_tokens("local", MAX_TOKENS), overlap_tokens=OVERLAP
    )  # fmt: skip
    found: list[Chunk] = []
    async for pages in ChildParser().parse(path):
        found += chunker.feed(pages)
    return [*found, *chunker.finish()]


async def models_own_s(url: str, chunks: list[Chunk]) -> float:
    """How long it takes for them where nobody else asks it, in batches as they are asked for."""
    began = time.perf_counter()
    async with httpx.AsyncClient(base_url=url, timeout=GIVE_UP_S, trust_env=False) as client:
        for first in range(0, len(chunks), MAX_CHUNKS_PER_BATCH):
            texts = [chunk.text for chunk in chunks[first : first + MAX_CHUNKS_PER_BATCH]]
            reply = await client.post("/embeddings", json={"model": MODEL, "input": texts, "input_type": "passage"})
            reply.raise_for_status()
    return time.perf_counter() - began


def cpu_s(pid: int) -> float:
    return float(sum(psutil.Process(pid).cpu_times()[:2]))


async def ended(client: httpx.AsyncClient, job_id: str) -> dict[str, object]:
    """Its result."""
    deadline = time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline:
        view = (await client.get(f"/jobs/{job_id}")).json()
        if view["status"] != "pending":
            if view["status"] != "completed":
                raise RuntimeError(f"the document was not ingested: {view['error']}")
            return dict(view["result"])
        await asyncio.sleep(0.2)
    raise RuntimeError("the document has no end")


async def begun(client: httpx.AsyncClient, name: str, content: bytes) -> str:
    reply = await client.post("/ingestion/ingest?wait=false", files={"file": (name, content)})
    reply.raise_for_status()
    return str(reply.json()["job_id"])


@asynccontextmanager
async def looked_at(parents: dict[str, int]) -> AsyncIterator[Peak]:
    """Inside, memory is looked at ten times a second."""
    peak = Peak()

    async def look() -> None:
        while True:
            await asyncio.to_thread(peak.look, parents)
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    try:
        yield peak
    finally:
        looking.cancel()


async def long_document(
    client: httpx.AsyncClient, deployment: Deployment, parts: dict[str, Running], *, pages: int, letters: int
) -> None:
    """Print what it took."""
    chance = random.Random(pages)
    content = await asyncio.to_thread(pdf_of, [text_of(letters, chance) for _ in range(pages)])
    parents = {name: part.pid for name, part in parts.items()}
    parents |= {process.name: process.popen.pid for process in deployment.processes}
    model = parts["embeddings"]
    before, began = cpu_s(model.pid), time.perf_counter()
    async with looked_at(parents) as peak:
        made = await ended(client, await begun(client, "long.pdf", content))
    took, cpu = time.perf_counter() - began, cpu_s(model.pid) - before
    with tempfile.NamedTemporaryFile() as file:
        await asyncio.to_thread(file.write, content)
        file.flush()
        chunks = await chunks_of(Path(file.name))
    if made["num_chunks"] != len(chunks):
        raise RuntimeError(f"{made['num_chunks']} chunks were ingested, and there are {len(chunks)}")
    before = cpu_s(model.pid)
    own = await models_own_s(model.url, chunks)
    own_cpu = cpu_s(model.pid) - before
    print(f"a PDF of {pages} pages, {len(content) / 1e6:.1f} MB, {len(chunks)} chunks, "
          f"{sum(chunk.tokens for chunk in chunks)} tokens: {took:.1f} s; the model by itself {own:.1f} s: "
          f"{took / own:.2f} times (aim 1.5); the model's CPU {cpu:.1f} s and {own_cpu:.1f} s")  # fmt: skip
    print("most memory, MB (aim 600): " + ", ".join(f"{name} {mb:.0f}" for name, mb in sorted(peak.mb.items())))


async def many_documents(
    client: httpx.AsyncClient, caller: Caller, pids: dict[str, int], *, documents: int, calls: int
) -> None:
    """Print what calls notice of them."""
    chance = random.Random(documents)

    async def calling(count: int = calls) -> tuple[float, float]:
        return await one_at_a_time(caller, path="/chat/", prompt="hello", wanted=200, count=count)

    before, began, used = await calling(), time.perf_counter(), {name: cpu_s(pid) for name, pid in pids.items()}
    jobs = [await begun(client, f"{n}.txt", text_of(30_000, chance).encode()) for n in range(documents)]
    during = await calling()
    views = [(await client.get(f"/jobs/{job_id}")).json()["status"] for job_id in jobs]
    left = views.count("pending")
    print(
        f"POST /chat/ p50 / p95: alone {before[0]:.1f} / {before[1]:.1f} ms; while {documents} documents are ingested "
        f"{during[0]:.1f} / {during[1]:.1f} ms: {during[1] / before[1]:.2f} times (aim 1.5); {left} of them were "
        "still under way at the end"
    )
    spent = {name: (cpu_s(pid) - used[name]) / (time.perf_counter() - began) * 100 for name, pid in pids.items()}
    print("CPU meanwhile, % of one: " + ", ".join(f"{name} {part:.0f}" for name, part in sorted(spent.items())))
    for job_id in jobs:
        await client.post(f"/jobs/{job_id}/cancel")


async def measure(here: Place, parts: dict[str, Running], given: argparse.Namespace) -> None:
    """All of it in one deployment."""
    async with here.deployment(
        ALLOWED_PROVIDERS="local,openai", LOCAL_EMBEDDING_URL=parts["embeddings"].url, EMBEDDING_PROVIDER="local",
        QDRANT_URL=parts["vectors"].url, DEFAULT_PROVIDER="openai", RATE_LIMIT_REQUESTS="100000",
    ) as deployment:  # fmt: skip
        ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
        deployment.worker("ingestion")
        await deployment.ready()
        async with client_of(ingress) as client:
            client.timeout = httpx.Timeout(120.0)
            token = client.headers["authorization"].removeprefix("Bearer ")
            async with Caller(ingress.http, token, 4) as caller:
                if given.documents:
                    pids = {name: part.pid for name, part in parts.items()}
                    pids |= {"kafka": here.kafka.pid, "postgres": here.postgres.pid, "stub": here.api.pid}
                    pids |= {process.name: process.popen.pid for process in deployment.processes}
                    await many_documents(client, caller, pids, documents=given.documents, calls=given.calls)
            if given.pages:
                await long_document(client, deployment, parts, pages=given.pages, letters=given.letters)


def main() -> None:
    """As the command line says."""
    parser = argparse.ArgumentParser(prog="bench.documents", description=__doc__)
    parser.add_argument("--pages", type=int, default=1_000, help="of the long PDF; 0: none")
    parser.add_argument("--letters", type=int, default=2_100, help="on each of its pages")
    parser.add_argument("--documents", type=int, default=50, help="at once; 0: none")
    parser.add_argument("--calls", type=int, default=200, help="of POST /chat/, alone and beside them")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends with it
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-documents-")))
        here = stack.enter_context(place())
        parts = {
            "vectors": start_vectors(home / "vectors"), "embeddings": start_embeddings(home / "model", model=MODEL),
        }  # fmt: skip
        for part in parts.values():
            stack.callback(part.stop)
        asyncio.run(measure(here, parts, given))


if __name__ == "__main__":
    main()
