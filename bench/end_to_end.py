"""The whole way of many jobs: POST, five topics, the provider's answer, the row, and its result read once by HTTP."""

import asyncio
import json
import time
import uuid

import asyncpg

from bench.caller import Caller
from bench.cpu import Cpu
from bench.measure import at_once
from bench.place import Place
from tests.deployment import Deployment

READERS = 16
LOOK_EVERY_S, LOOK_AT_MOST = 0.02, 100  # cheap, and far more a second than there are
GIVE_UP_S = 120.0


async def end_to_end(
    place: Place, deployment: Deployment, caller: Caller, *, jobs: int, callers: int
) -> tuple[float, dict[str, float]]:
    """Jobs per second from the first POST to the last result read; CPU ms per job by whose it is.

    A job's result is asked for once, when its row says that it has ended.
    """
    mark, cpu = uuid.uuid4().hex[:8], Cpu(place.pids(deployment))
    posted: list[uuid.UUID] = []
    ended: asyncio.Queue[uuid.UUID | None] = asyncio.Queue()

    async def post(n: int) -> tuple[int, float]:
        status, body = await caller.call("POST", "/chat/async", json.dumps({"prompt": f"{mark} {n}"}).encode())
        if status != 202:
            raise RuntimeError(f"not accepted: {status} {body.decode()}")
        posted.append(uuid.UUID(json.loads(body)["job_id"]))
        return status, 0.0

    async def read() -> None:
        while (job_id := await ended.get()) is not None:
            status, body = await caller.call("GET", f"/jobs/{job_id}")
            found = json.loads(body)
            if status != 200 or found["status"] != "completed" or mark not in found["result"]["result"]["text"]:
                raise RuntimeError(f"a job that has ended is told as {status} {body.decode()}")

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(_tell_ended(deployment.dsn, posted, ended, jobs))
        for _ in range(READERS):
            group.create_task(read())
        await at_once(post, count=jobs, callers=callers)
    return jobs / (time.perf_counter() - began), cpu.since(jobs)


async def _tell_ended(dsn: str, posted: list[uuid.UUID], ended: "asyncio.Queue[uuid.UUID | None]", jobs: int) -> None:
    """Put every job into the queue once its row has an outcome; the oldest are looked at first."""
    connection = await asyncpg.connect(dsn)
    told, deadline = 0, time.monotonic() + GIVE_UP_S
    waiting: dict[uuid.UUID, None] = {}
    try:
        while told < jobs:
            await asyncio.sleep(LOOK_EVERY_S)
            waiting.update(dict.fromkeys(posted))
            posted.clear()
            rows = await connection.fetch(
                "SELECT job_id FROM jobs WHERE job_id = ANY($1) AND status <> 'pending'", list(waiting)[:LOOK_AT_MOST]
            )
            for row in rows:
                job_id = uuid.UUID(int=row["job_id"].int)
                del waiting[job_id]
                ended.put_nowait(job_id)
            told += len(rows)
            if time.monotonic() > deadline:
                raise RuntimeError(f"{told} of {jobs} have ended after {GIVE_UP_S} s")
        for _ in range(READERS):
            ended.put_nowait(None)
    finally:
        await connection.close()
