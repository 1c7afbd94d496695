"""The whole way of many jobs: POST, whatever carries it, the provider's answer, and its result read once by HTTP."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg

from bench.caller import Caller
from bench.cpu import Cpu
from bench.measure import at_once
from bench.place import Place
from tests.deployment import Deployment

READERS = 16
LOOK_EVERY_S, LOOK_AT_MOST = 0.02, 100  # cheap, and far more a second than there are
GIVE_UP_S = 120.0

Ended = Callable[[Sequence[str]], Awaitable[Sequence[str]]]  # of some ids, those that have ended


async def end_to_end(
    place: Place, deployment: Deployment, caller: Caller, *, jobs: int, callers: int
) -> tuple[float, dict[str, float]]:
    """Through ours, its rows in Postgres included: jobs per second, and CPU ms per job by whose it is.

    A job's result is asked for once, when its row says that it has ended.
    """
    cpu = Cpu(place.pids(deployment))
    async with _rows(deployment.dsn) as ended:
        rate = await whole_way(caller, ended, jobs=jobs, callers=callers)
    return rate, cpu.since(jobs)


async def whole_way(caller: Caller, ended: Ended, *, jobs: int, callers: int) -> float:
    """Jobs per second from the first POST to the last result read."""
    mark = uuid.uuid4().hex[:8]
    posted: list[str] = []
    done: asyncio.Queue[str | None] = asyncio.Queue()

    async def post(n: int) -> tuple[int, float]:
        status, body = await caller.call("POST", "/chat/async", json.dumps({"prompt": f"{mark} {n}"}).encode())
        if status != 202:
            raise RuntimeError(f"not accepted: {status} {body.decode()}")
        posted.append(json.loads(body)["job_id"])
        return status, 0.0

    async def read() -> None:
        while (job_id := await done.get()) is not None:
            status, body = await caller.call("GET", f"/jobs/{job_id}")
            found = json.loads(body)
            if status != 200 or found["status"] != "completed" or mark not in found["result"]["result"]["text"]:
                raise RuntimeError(f"a job that has ended is told as {status} {body.decode()}")

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(_tell_ended(ended, posted, done, jobs))
        for _ in range(READERS):
            group.create_task(read())
        await at_once(post, count=jobs, callers=callers)
    return jobs / (time.perf_counter() - began)


async def _tell_ended(ended: Ended, posted: list[str], done: "asyncio.Queue[str | None]", jobs: int) -> None:
    """Put every job into the queue once it has ended; the oldest are looked at first."""
    told, deadline = 0, time.monotonic() + GIVE_UP_S
    waiting: dict[str, None] = {}
    while told < jobs:
        await asyncio.sleep(LOOK_EVERY_S)
        waiting.update(dict.fromkeys(posted))
        posted.clear()
        found = await ended(list(waiting)[:LOOK_AT_MOST]) if waiting else ()
        for job_id in found:
            del waiting[job_id]
            done.put_nowait(job_id)
        told += len(found)
        if time.monotonic() > deadline:
            raise RuntimeError(f"{told} of {jobs} have ended after {GIVE_UP_S} s")
    for _ in range(READERS):
        done.put_nowait(None)


@asynccontextmanager
async def _rows(dsn: str) -> AsyncIterator[Ended]:
    """Which have an outcome in Postgres."""
    connection = await asyncpg.connect(dsn)

    async def ended(job_ids: Sequence[str]) -> list[str]:
        rows = await connection.fetch(
            "SELECT job_id FROM jobs WHERE job_id = ANY($1::uuid[]) AND status <> 'pending'", job_ids
        )
        return [str(row["job_id"]) for row in rows]

    try:
        yield ended
    finally:
        await connection.close()
