"""How fast some work goes, and what it costs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from bench.cpu import Cpu

TICK_S = 0.02
GIVE_UP_S = 120.0

Count = Callable[[], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Pace:
    """Jobs per second, and CPU of the workers, ms a job."""

    rate: float
    cpu_ms: float


async def pace(begun: Count, done: Count, *, jobs: int, pids: Sequence[int]) -> Pace:
    """Wait until so many jobs are done; measured from the moment at which any has begun, without those done by then.

    Args:
        begun: How many have begun; at one the clock starts.
        done: How many are done.
        jobs: How many are to be done.
        pids: Of the workers whose CPU is told.

    Raises:
        RuntimeError: They were not done within 120 s.
    """
    deadline = monotonic() + GIVE_UP_S
    while not await begun():
        await _tick(deadline, 0, jobs)
    cpu, began, before = Cpu({"workers": list(pids)}), monotonic(), await done()
    while (found := await done()) < jobs:
        await _tick(deadline, found, jobs)
    return Pace((jobs - before) / (monotonic() - began), cpu.since(jobs - before)["workers"])


async def _tick(deadline: float, found: int, jobs: int) -> None:
    if monotonic() > deadline:
        raise RuntimeError(f"{found} of {jobs} done after {GIVE_UP_S} s")
    await asyncio.sleep(TICK_S)
