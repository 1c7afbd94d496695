"""A peer's processes: its worker, and the front that takes jobs for it."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from embedded.ports import free_port
from tests.deployment import ROOT, plain_client

BIN = ROOT / ".venv-peers" / "bin"
READY_WITHIN_S = 60.0


@dataclass(frozen=True)
class Peer:
    """`name`: as the table has it; `module`: its file here; `worker`: the command, by its own program."""

    name: str
    module: str
    worker: Sequence[str]


TASKIQ = ("--workers", "1", "--max-async-tasks", "200", "--log-level", "WARNING")
CELERY = ("worker", "--pool", "prefork", "--concurrency", "4", "--loglevel", "WARNING")
PEERS = (
    Peer("Celery on Redis", "celery_peer", ("celery", "-A", "bench.peers.celery_peer", *CELERY)),
    Peer("taskiq on Redis", "taskiq_redis_peer", ("taskiq", "worker", "bench.peers.taskiq_redis_peer:broker", *TASKIQ)),
    Peer("taskiq on Kafka", "taskiq_kafka_peer", ("taskiq", "worker", "bench.peers.taskiq_kafka_peer:broker", *TASKIQ)),
    Peer("arq", "arq_peer", ("arq", "bench.peers.arq_peer.WorkerSettings")),
    Peer("FastStream on Kafka", "faststream_peer", ("faststream", "run", "bench.peers.faststream_peer:app")),
)


@dataclass(frozen=True)
class Front:
    """Where jobs are posted. `pids`: worker and front."""

    http: str
    pids: Mapping[str, list[int]]


@contextmanager
def redis(home: Path) -> Iterator[tuple[str, int]]:
    """URL and process id of a Redis that keeps nothing on disk: the least that it can cost.

    Raises:
        FileNotFoundError: There is none; says which package has it.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError("redis-server is not installed: on Debian it is in the package redis-server")
    port = free_port()
    with ExitStack() as stack:
        pid = start(stack, home / "redis.log", [program, "--port", str(port), "--save", "", "--appendonly", "no"], {})
        yield f"redis://127.0.0.1:{port}", pid


@asynccontextmanager
async def running(peer: Peer, *, environment: Mapping[str, str], home: Path) -> AsyncIterator[Front]:
    """A worker and a front, ready; gone afterwards."""
    port, log = free_port(), home / f"{peer.module}-front.log"
    worker = [str(BIN / peer.worker[0]), *peer.worker[1:]]
    front = [str(BIN / "python"), "-m", "bench.peers.front", peer.module, str(port)]
    with ExitStack() as stack:
        pids = {
            "worker": [start(stack, home / f"{peer.module}.log", worker, environment)],
            "front": [start(stack, log, front, environment)],
        }
        async with plain_client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            await answers(client, "/openapi.json", log)
        try:
            yield Front(f"http://127.0.0.1:{port}", pids)
        except BaseException:
            print((await asyncio.to_thread(log.read_text))[-2000:])
            raise


async def answers(client: httpx.AsyncClient, path: str, log: Path) -> None:
    """Wait until it answers anything at all; RuntimeError with where its log is."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        try:
            await client.get(path)
        except httpx.TransportError:
            await asyncio.sleep(0.1)
        else:
            return
    said = await asyncio.to_thread(log.read_text)
    raise RuntimeError(f"it does not answer after {READY_WITHIN_S} s: {said[-2000:]}")


def start(stack: ExitStack, log: Path, command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Its process id; it and its children are ended with the stack."""
    output = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    stack.callback(process.wait)
    stack.callback(lambda: os.killpg(process.pid, signal.SIGKILL))
    return process.pid
