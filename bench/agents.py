"""What a step of an agent costs beside its model and its tool, and how many agents one worker leads at once.

`python -m bench --only agents`, or by itself: `python -m bench.agents`.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import httpx
import uvloop

from bench.backlog import Backlog
from bench.cpu import Cpu
from bench.measure import Row, peak_mb, percentiles, resident_mb
from bench.place import Place, place
from tests.deployment import ROOT

AGENTS, STEPS, DELAY_MS = 200, 10, 100
WORKERS = (1, 2, 3)
ALONE_RUNS, WARM_UP = 10, 2
TICK_S, GIVE_UP_S = 0.01, 120.0


async def agents(place: Place, *, repeat: int) -> list[Row]:
    """Both figures."""
    with model(delay_ms=0) as url:
        rows = [await one_step(place, url)]
    for workers in WORKERS:
        with model(delay_ms=DELAY_MS) as url:  # a new one: it counts the steps of each goal
            rows += await many_agents(place, url, repeat=repeat, workers=workers)
    return rows


async def one_step(place: Place, url: str) -> Row:
    """From a model's answer to its next question, with nothing else under way: two hops, and four statements."""
    async with place.deployment(OPENAI_BASE_URL=url) as deployment:
        backlog, _ = Backlog(deployment), deployment.worker("agent")
        await deployment.ready()
        for n in range(ALONE_RUNS + WARM_UP):
            if n == WARM_UP:
                gaps_of(url)
            backlog.agent_step_requested(1, steps=STEPS)
            await _until_finished(backlog, n + 1)
        gaps = gaps_of(url)
    p50, p95 = percentiles(gaps)
    return "agent, one step beside model and tool", f"p50 {p50:.1f} ms, p95 {p95:.1f} ms", "p50 25 ms"


async def many_agents(place: Place, url: str, *, repeat: int, workers: int) -> list[Row]:
    """Share of the rate that there would be if only the model took time, and the first worker's memory.

    One worker is what the aim is of; what more of them reach says how many cores there are.
    """
    shares, cpus, idle, most = [], [], 0.0, 0.0
    async with place.deployment(OPENAI_BASE_URL=url) as deployment:
        backlog, all_of_them = Backlog(deployment), [deployment.worker("agent") for _ in range(workers)]
        await deployment.ready()
        backlog.agent_step_requested(AGENTS, steps=1)  # once they share the topics, all have done something
        await _until_finished(backlog, AGENTS)
        worker = all_of_them[0]
        idle = resident_mb(worker)
        for n in range(repeat):
            gaps_of(url)
            pids = [one.popen.pid for one in all_of_them]
            cpu = Cpu({"agent": pids, "Kafka": [place.kafka.pid], "Postgres": [place.postgres.pid]})
            async with peak_mb(worker) as peak:
                began = monotonic()
                backlog.agent_step_requested(AGENTS, steps=STEPS)
                await _until_finished(backlog, AGENTS * (n + 2))
                shares.append(STEPS * DELAY_MS / 1000 / (monotonic() - began))
                most = max(most, peak())
            cpus.append(cpu.since(AGENTS * STEPS))
    share = statistics.median(shares)
    ideal = AGENTS * 1000 / DELAY_MS
    told = ", ".join(f"{100 * one:.0f} %" for one in sorted(shares))
    who = "one worker" if workers == 1 else f"{workers} workers"
    what = f"{AGENTS} agents of {STEPS} steps at once, {who}, a model of {DELAY_MS} ms"
    aim = "70 %" if workers == 1 else "-"
    cpu_ms = {name: statistics.median(one[name] for one in cpus) for name in ("agent", "Kafka", "Postgres")}
    return [
        (what, f"{share * ideal:.0f} steps/s, {100 * share:.0f} % of {ideal:.0f} ({told})", aim),
        ("  CPU ms a step", ", ".join(f"{name} {ms:.2f}" for name, ms in cpu_ms.items()), "-"),
        ("  resident: idle / all at once", f"{idle:.0f} / {most:.0f} MB", "- / 250 MB"),
    ]


def gaps_of(url: str) -> list[float]:
    """Those since they were asked for last, seconds."""
    gaps: list[float] = httpx.post(f"{url}/gaps", json={}, timeout=30).json()["gaps"]
    return gaps


@contextmanager
def model(*, delay_ms: int) -> Iterator[str]:
    """Its base URL."""
    command = [sys.executable, "-m", "bench.agent_model", "--delay-ms", str(delay_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def _until_finished(backlog: Backlog, jobs: int) -> None:
    deadline = monotonic() + GIVE_UP_S
    while (found := await backlog.published("job-finished")) < jobs:
        if monotonic() > deadline:
            raise RuntimeError(f"{found} of {jobs} runs have ended after {GIVE_UP_S} s")
        await asyncio.sleep(TICK_S)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.agents")
    parser.add_argument("--repeat", type=int, default=3)
    with place() as there:
        for row in uvloop.run(agents(there, repeat=parser.parse_args().repeat)):
            print(" | ".join(row), flush=True)


if __name__ == "__main__":
    main()
