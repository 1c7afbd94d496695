"""Memory of every process while many jobs wait: `python -m bench.waiting --jobs 200000`.

Publishes straight to `job-requested` while no completion worker runs, waits until all of them wait for one, looks on
for a while, then lets them finish and checks that each has ended, after one call.
"""

import argparse
import asyncio
import json
import sys
import time
import uuid
from contextlib import suppress

import asyncpg
import httpx
import psutil
from aiokafka import AIOKafkaProducer

from bench.measure import resident_mb
from bench.place import Place, place
from schemas.envelope import Attributes
from tests.deployment import Deployment

USERS = 500
SAMPLE_S = 5.0
LOOK_ON_S = 30.0
STUCK_S = 120.0  # without progress


class Table:
    """One line every few seconds: what waits, what has ended, and each process's resident memory."""

    def __init__(self, deployment: Deployment, others: dict[str, int]) -> None:
        """`others`: processes beside the product's, by name, with their ids."""
        self._deployment, self._others = deployment, others
        self._began, self._next = time.monotonic(), 0.0
        self._names: list[str] = []
        self.lines: list[tuple[str, dict[str, float]]] = []

    def sample(self, phase: str, waiting: int, ended: int, *, now_too: bool = False) -> None:
        """Print a line where it is time for one."""
        now = time.monotonic()
        if now < self._next and not now_too:
            return
        self._next = now + SAMPLE_S
        memory = {process.name: resident_mb(process) for process in self._deployment.processes}
        memory |= {name: psutil.Process(pid).memory_info().rss / 1e6 for name, pid in self._others.items()}
        self.lines.append((phase, memory))
        if list(memory) != self._names:
            self._names = list(memory)
            print(f"{'s':>5} {'phase':<10} {'waiting':>8} {'ended':>8} " + " ".join(f"{n:>24}" for n in self._names))
        figures = " ".join(f"{memory[name]:>21.0f} MB" for name in self._names)
        print(f"{now - self._began:>5.0f} {phase:<10} {waiting:>8} {ended:>8} {figures}", flush=True)

    def grown(self, phase: str) -> dict[str, float]:
        """MB from a phase's first to its last line, by process."""
        found = [memory for told, memory in self.lines if told == phase]
        return {name: found[-1][name] - found[0].get(name, 0.0) for name in found[-1]}


async def counts(connection: asyncpg.Connection) -> tuple[int, int]:
    """Jobs that wait, and those that have completed."""
    row = await connection.fetchrow(
        """SELECT count(*) FILTER (WHERE status = 'pending') AS waiting,
                  count(*) FILTER (WHERE status = 'completed') AS ended FROM jobs"""
    )
    return row["waiting"], row["ended"]


async def publish(deployment: Deployment, jobs: int) -> None:
    """All of them, as anybody may."""
    async with AIOKafkaProducer(
        bootstrap_servers=deployment.kafka.bootstrap, acks="all", enable_idempotence=True, max_batch_size=512 * 1024
    ) as producer:  # fmt: skip
        for n in range(USERS):
            user = {"user_id": f"user-{n}", "role": "user"}
            await producer.send(f"{deployment.prefix}user-updated", json.dumps(user).encode(), key=f"user-{n}".encode())
        await producer.flush()
        for n in range(jobs):
            user_id = f"user-{n % USERS}"
            request = {"prompt": f"waiting {n}", "timeout": 120}
            value = {"user_id": user_id, "kind": "chat", "request": request, "expires_after": 86_400}
            headers = Attributes(str(uuid.uuid4()), "/bench", "job-requested").headers()
            await producer.send(
                f"{deployment.prefix}job-requested", json.dumps(value).encode(), key=user_id.encode(), headers=headers
            )  # fmt: skip
        await producer.flush()


async def measure(deployment: Deployment, table: Table, jobs: int) -> None:
    """Raises RuntimeError where not all of them end."""
    deployment.start("ingress")
    for role in ("gate", "sink"):
        deployment.worker(role)
    await deployment.ready()
    connection = await asyncpg.connect(deployment.dsn)

    async def reach(phase: str, wanted: tuple[int, int]) -> None:
        seen, at = (-1, -1), time.monotonic()
        while (now := await counts(connection)) != wanted:
            if now != seen:
                seen, at = now, time.monotonic()
            if time.monotonic() - at > STUCK_S:
                raise RuntimeError(f"{phase}: {now} of {wanted}, and nothing moves")
            table.sample(phase, *now)
            await asyncio.sleep(1)

    table.sample("idle", 0, 0, now_too=True)
    publishing = asyncio.create_task(publish(deployment, jobs))
    await reach("filling", (jobs, 0))
    await publishing
    until = time.monotonic() + LOOK_ON_S
    while time.monotonic() < until:
        table.sample("waiting", jobs, 0)
        await asyncio.sleep(1)
    await deployment.ready(deployment.worker("completion"))
    await reach("finishing", (0, jobs))
    table.sample("done", 0, jobs, now_too=True)
    await connection.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.waiting")
    parser.add_argument("--jobs", type=int, default=200_000)
    jobs = parser.parse_args().jobs

    async def measured(there: Place) -> Table:
        async with there.deployment() as deployment:
            table = Table(deployment, {"kafka": there.kafka.pid, "postgres": there.postgres.pid})
            await measure(deployment, table, jobs)
            return table

    with place() as there, suppress(KeyboardInterrupt):
        table = asyncio.run(measured(there))
        calls = httpx.get(there.api_url.removesuffix("/v1") + "/counts", timeout=60).json()["calls"]
        if len(calls) != jobs or set(calls.values()) != {1}:
            sys.exit(f"{len(calls)} prompts were asked for, {sum(calls.values())} times in all")
        grown = ", ".join(f"{name} {mb:+.0f} MB" for name, mb in table.grown("waiting").items())
        print(f"all {jobs} have ended, each after one call; grown while they waited: {grown}")


main()
