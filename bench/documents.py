"""Ingestion: `python -m bench.documents [--pages 1000] [--letters 2100] [--documents 50] [--calls 200]
[--rounds 3]`.

A long PDF from its upload to the last vector, beside the time that the embedding model takes for the same chunks by
itself, and the memory of every process meanwhile; then `POST /chat/` against a stub, alone and while many documents
are ingested at once. All of it on a real Kafka, Postgres, embedding model and the process `vectors`.
"""

import argparse
import asyncio
import random
import signal
import statistics
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
from embedded.running import Running
from embedded.services import start_embeddings, start_vectors
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


def held_s(pid: int) -> float:
    """How long its threads were ready to run while others ran. Source: the kernel's scheduler/sched-stats.rst."""
    waited_ns = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):
            waited_ns += int(path.read_text(encoding="ascii").split()[1])
    return waited_ns / 1e9


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
    client: httpx.AsyncClient, caller: Caller, pids: dict[str, int], *, documents: int, calls: int, rounds: int
) -> None:
    """Print what calls notice of them: alone and beside them by turns, since a machine is not the same all the time."""
    chance = random.Random(documents)
    found: list[tuple[float, float, float, float]] = []
    spent, waited, took = dict.fromkeys(pids, 0.0), dict.fromkeys(pids, 0.0), 0.0
    for n in range(rounds):
        alone = await one_at_a_time(caller, path="/chat/", prompt="hello", wanted=200, count=calls)
        texts = [text_of(30_000, chance).encode() for _ in range(documents)]
        used, held = {name: cpu_s(pid) for name, pid in pids.items()}, {name: held_s(pid) for name, pid in pids.items()}
        began = time.perf_counter()
        jobs = [await begun(client, f"{n}-{place}.txt", text) for place, text in enumerate(texts)]
        beside = await one_at_a_time(caller, path="/chat/", prompt="hello", wanted=200, count=calls)
        took += time.perf_counter() - began
        for name, pid in pids.items():
            spent[name] += cpu_s(pid) - used[name]
            waited[name] += held_s(pid) - held[name]
        left = [(await client.get(f"/jobs/{job_id}")).json()["status"] for job_id in jobs].count("pending")
        found.append((*alone, *beside))
        print(
            f"  round {n + 1}: alone {alone[0]:.1f} / {alone[1]:.1f} ms, beside {beside[0]:.1f} / {beside[1]:.1f} ms: "
            f"{beside[1] / alone[1]:.2f} times; {left} of {documents} still under way at its end",
            flush=True,
        )
        await over(client, jobs, pids["embeddings"])
    middle = [statistics.median(column) for column in zip(*found, strict=True)]
    ratios = sorted(beside / alone for _, alone, _, beside in found)
    print(
        f"POST /chat/ p50 / p95, median of {rounds} rounds: alone {middle[0]:.1f} / {middle[1]:.1f} ms; while "
        f"{documents} documents are ingested {middle[2]:.1f} / {middle[3]:.1f} ms; p95 "
        f"{statistics.median(ratios):.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f}; aim 1.5)"
    )
    for told, of in (("CPU", spent), ("waiting for one (all threads)", waited)):
        print(f"{told} meanwhile, % of one: "
              + ", ".join(f"{name} {part / took * 100:.0f}" for name, part in sorted(of.items())))  # fmt: skip


async def over(client: httpx.AsyncClient, jobs: list[str], model: int) -> None:
    """Cancel what is left; returns once the model has nothing to do."""
    for job_id in jobs:
        await client.post(f"/jobs/{job_id}/cancel")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        before = cpu_s(model)
        await asyncio.sleep(1)
        if cpu_s(model) - before < 0.05:
            return
    raise RuntimeError("the embedding model still works for documents that were cancelled")


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
                    await many_documents(
                        client, caller, pids, documents=given.documents, calls=given.calls, rounds=given.rounds,
                    )  # fmt: skip
            if given.pages:
                await long_document(client, deployment, parts, pages=given.pages, letters=given.letters)


def main() -> None:
    """As the command line says."""
    parser = argparse.ArgumentParser(prog="bench.documents", description=__doc__)
    parser.add_argument("--pages", type=int, default=1_000, help="of the long PDF; 0: none")
    parser.add_argument("--letters", type=int, default=2_100, help="on each of its pages")
    parser.add_argument("--documents", type=int, default=50, help="at once; 0: none")
    parser.add_argument("--calls", type=int, default=200, help="of POST /chat/, alone and beside them, in each round")
    parser.add_argument("--rounds", type=int, default=3, help="of both by turns")
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
