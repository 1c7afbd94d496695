"""What workers do by themselves on a backlog, from their first record to the last."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from bench.backlog import Backlog
from bench.measure import peak_mb, resident_mb
from bench.pace import Count, Pace, pace
from bench.place import Place

ROUTED = "completion-requested-{provider}"


async def gate(place: Place, *, jobs: int) -> Pace:
    """Three stages in one process: from the first prompt that is sanitized to the last job that is routed."""
    async with place.deployment() as deployment:
        backlog = Backlog(deployment)
        backlog.job_requested(jobs)
        worker = deployment.worker("gate")
        sanitized, routed = partial(backlog.published, "prompt-sanitized"), partial(backlog.published, ROUTED)
        found = await pace(sanitized, routed, jobs=jobs, pids=[worker.popen.pid])
        for topic in ("job-requested", "prompt-sanitized", "job-admitted"):
            await backlog.until_committed(topic, "gate", jobs)
        if await backlog.published("job-finished"):
            raise RuntimeError("not all were admitted")
        return found


async def workers(place: Place, *, jobs: int) -> Pace:
    """All three roles, a process each, from `job-requested` to the row; the gate comes last."""
    async with place.deployment() as deployment, _rows(deployment.dsn) as rows:
        backlog = Backlog(deployment)
        backlog.job_requested(jobs)
        others = [deployment.worker(role) for role in ("completion", "sink")]
        await deployment.ready()
        started = [*others, deployment.worker("gate")]
        sanitized = partial(backlog.published, "prompt-sanitized")
        return await pace(sanitized, rows, jobs=jobs, pids=[worker.popen.pid for worker in started])


async def sink(place: Place, *, jobs: int) -> Pace:
    """Outcomes into Postgres: from the first rows that are there to the last one."""
    async with place.deployment() as deployment, _rows(deployment.dsn) as rows:
        Backlog(deployment).job_finished(jobs)
        return await pace(rows, rows, jobs=jobs, pids=[deployment.worker("sink").popen.pid])


async def completion(place: Place, *, jobs: int, at_once: int, delay_s: float) -> tuple[Pace, float, float]:
    """One worker on a slow provider, from its first call to the last outcome; resident MB when idle, and at most."""
    async with place.deployment(COMPLETION_CONCURRENCY=str(at_once)) as deployment:
        worker = deployment.worker("completion")
        await deployment.ready()
        idle, backlog = resident_mb(worker), Backlog(deployment)
        called, ended = partial(backlog.published, "job-progressed"), partial(backlog.published, "job-finished")
        async with peak_mb(worker) as peak:
            publishing = asyncio.to_thread(backlog.completion_requested, jobs, delay_s=delay_s)
            found, _ = await asyncio.gather(pace(called, ended, jobs=jobs, pids=[worker.popen.pid]), publishing)
        return found, idle, peak()


@asynccontextmanager
async def _rows(dsn: str) -> AsyncIterator[Count]:
    """How many jobs have ended in Postgres."""
    connection = await asyncpg.connect(dsn)

    async def count() -> int:
        found: int = await connection.fetchval("SELECT count(*) FROM jobs WHERE status = 'completed'")
        return found

    try:
        yield count
    finally:
        await connection.close()
