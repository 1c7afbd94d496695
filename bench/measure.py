"""The figures: each function runs one load against a deployment and returns rows for the table."""

import asyncio
import signal
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import asyncpg
import psutil

from bench.caller import Caller
from tests.deployment import Deployment, Process

Row = tuple[str, str, str]  # what, measured, aim


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """p50 and p95, ms."""
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49] * 1000, cuts[94] * 1000


async def one_at_a_time(caller: Caller, *, path: str, prompt: str, wanted: int, count: int) -> tuple[float, float]:
    """p50 and p95, ms, of calls after each other."""
    times = []
    for n in range(count + 20):
        status, seconds = await caller.post(path, {"prompt": f"{prompt} {n}"})
        if status != wanted:
            raise RuntimeError(f"{path} answered {status}, not {wanted}")
        if n >= 20:  # the first ones warm up
            times.append(seconds)
    return percentiles(times)


async def at_once(
    call: Callable[[int], Awaitable[tuple[int, float]]], *, count: int, callers: int
) -> tuple[float, list[float], list[int]]:
    """Calls by so many callers: seconds in all, seconds of each, statuses."""
    numbers = iter(range(count))
    times: list[float] = []
    statuses: list[int] = []

    async def work() -> None:
        for n in numbers:
            status, seconds = await call(n)
            times.append(seconds)
            statuses.append(status)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(callers)))
    return time.perf_counter() - began, times, statuses


async def rows_reach(dsn: str, since: datetime, count: int, *, within_s: float) -> None:
    """Wait until so many jobs accepted since then have ended in Postgres."""
    connection = await asyncpg.connect(dsn)
    deadline = time.monotonic() + within_s
    try:
        while True:
            found = await connection.fetchval(
                "SELECT count(*) FROM jobs WHERE status = 'completed' AND accepted_at >= $1", since
            )
            if found >= count:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{found} of {count} rows after {within_s} s")
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def throughput(caller: Caller, deployment: Deployment, *, jobs: int, callers: int) -> tuple[float, float, float]:
    """Jobs per second from the first POST to the last row, POSTs per second, CPU ms per job of the product."""
    mark, since = uuid.uuid4().hex[:8], datetime.now(UTC)
    processes = [psutil.Process(process.popen.pid) for process in deployment.processes]
    before = sum(sum(process.cpu_times()[:2]) for process in processes)
    began = time.perf_counter()
    posting, _, statuses = await at_once(
        lambda n: caller.post("/chat/async", {"prompt": f"{mark} {n}"}), count=jobs, callers=callers
    )
    if set(statuses) != {202}:
        raise RuntimeError(f"not all were accepted: {sorted(set(statuses))}")
    await rows_reach(deployment.dsn, since, jobs, within_s=120)
    seconds = time.perf_counter() - began
    cpu = sum(sum(process.cpu_times()[:2]) for process in processes) - before
    return jobs / seconds, jobs / posting, cpu / jobs * 1000


async def slow_provider(
    caller: Caller, deployment: Deployment, worker: Process, api_busy: Callable[[], int]
) -> tuple[float, int]:
    """500 jobs that wait for a worker, on a provider of 500 ms.

    Seconds from the moment at which the worker may begin to the last row, and how many calls were open at once.
    """
    mark, since = uuid.uuid4().hex[:8], datetime.now(UTC)
    worker.popen.send_signal(signal.SIGSTOP)
    await at_once(
        lambda n: caller.post("/chat/async", {"prompt": f"{mark} {n} [delay=0.5]"}), count=500, callers=200
    )  # fmt: skip
    worker.popen.send_signal(signal.SIGCONT)
    began = time.perf_counter()
    await rows_reach(deployment.dsn, since, 500, within_s=60)
    return time.perf_counter() - began, api_busy()


def resident_mb(process: Process) -> float:
    """Memory of one process."""
    return float(psutil.Process(process.popen.pid).memory_info().rss) / 1e6


@asynccontextmanager
async def peak_mb(process: Process) -> AsyncIterator[Callable[[], float]]:
    """Inside, memory is looked at ten times a second; what is yielded tells the most that was seen, MB."""
    seen = [resident_mb(process)]

    async def look() -> None:
        while True:
            await asyncio.sleep(0.1)
            seen.append(resident_mb(process))

    looking = asyncio.create_task(look())
    try:
        yield lambda: max(seen)
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
