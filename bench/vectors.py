"""How long a search takes: `python -m bench.vectors [CHUNKS] [--local]`.

Through `QdrantRepository`, of one user's chunks among as many of another's; without making the query's vector.
"""

import argparse
import asyncio
import random
import shutil
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import psutil

from embedded.services import start_vectors
from processors.documents.document_ports import Collection, EmbeddedChunk
from schemas.events import Chunk
from schemas.requests import SearchMode
from vectors.opening import open_folder, open_server
from vectors.qdrant import QdrantRepository

COLLECTION = Collection("bench", "random", 384)
BATCH, SEARCHES = 32, 100
MODES: tuple[SearchMode, ...] = ("dense", "keyword", "hybrid")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("chunks", type=int, nargs="?", default=20_000)
    parser.add_argument("--local", action="store_true", help="qdrant-client's local mode, in place of the server")
    parser.add_argument("--searches", type=int, default=SEARCHES)
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-vectors-"))
    running = None if given.local else start_vectors(home)
    try:
        pid = psutil.Process().pid if running is None else running.pid
        asyncio.run(_measure(running.url if running else None, home, given.chunks, given.searches, pid))
    finally:
        if running is not None:
            running.stop()
        shutil.rmtree(home, ignore_errors=True)


async def _measure(url: str | None, home: Path, chunks: int, searches: int, pid: int) -> None:
    vectors = open_server(url, api_key=None, cacert=None) if url else open_folder(home / "local")
    chance = random.Random(7)
    words = [f"word{n}" for n in range(20_000)]
    weights = [1 / (n + 10) for n in range(len(words))]  # as words are spread in a language
    began, spent = time.monotonic(), 0.0
    for first in range(0, chunks * 2, BATCH):
        batch = [
            EmbeddedChunk(
                Chunk(index=n, text=" ".join(chance.choices(words, weights, k=150)), start=0, end=1, tokens=400),
                tuple(chance.gauss(0, 1) for _ in range(COLLECTION.dimensions)),
            )
            for n in range(BATCH)
        ]
        at = time.monotonic()
        user_id = f"user-{first // BATCH % 2}"
        await vectors.store(
            user_id, COLLECTION, document_id=uuid4(), version_id=uuid4(), source="s", chunks=batch
        )  # fmt: skip
        spent += time.monotonic() - at
    print(f"{await vectors.count('user-0')} chunks of one user of two")
    print(f"stored: {spent / chunks / 2 * 1000:.2f} ms a chunk ({time.monotonic() - began:.0f} s with making them)")
    for mode in MODES:
        times = [await _search(vectors, mode, chance, words, weights) for _ in range(searches)]
        times.sort()
        print(f"{mode:8} p50 {times[len(times) // 2]:6.1f} ms   p95 {times[int(len(times) * 0.95)]:6.1f} ms")
    rss = psutil.Process(pid).memory_info().rss / 1e6
    print(f"resident: {rss:.0f} MB")
    await vectors.close()


async def _search(
    vectors: QdrantRepository, mode: SearchMode, chance: random.Random, words: list[str], weights: list[float]
) -> float:
    query = " ".join(chance.choices(words, weights, k=6))
    vector = [chance.gauss(0, 1) for _ in range(COLLECTION.dimensions)]
    hidden = [uuid4() for _ in range(3)]
    began = time.perf_counter()
    found = await vectors.search(
        "user-0", COLLECTION, query=query, vector=vector, mode=mode, limit=5, hidden=hidden
    )  # fmt: skip
    assert found
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
