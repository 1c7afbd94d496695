"""`make bench-peers`: ours beside what others offer for the same work, in one run, since machines differ.

One hop and no database for the others; five topics and a row in Postgres for ours. The same stand-in, callers, and one
worker process each (Celery: four, since each blocks). LiteLLM's proxy beside `POST /v1/chat/completions`.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence

import uvloop
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from rich.console import Console
from rich.table import Table

from bench.__main__ import V1, _all_roles, _log_in
from bench.caller import Caller
from bench.cpu import Cpu
from bench.end_to_end import end_to_end, whole_way
from bench.measure import at_once, percentiles
from bench.peers.litellm_proxy import litellm_proxy
from bench.peers.running import BIN, PEERS, Peer, redis, running
from bench.place import OURS, Place, place

CALLERS, SYNC_CALLERS, WARM = 200, 50, 300
TOPICS = ("bench-taskiq", "bench-faststream-jobs", "bench-faststream-answers")

Found = tuple[float, dict[str, float]]  # jobs per second, CPU ms per job by whose it is
Row = tuple[str, str, str]


async def of_peer(place: Place, peer: Peer, redis_url: str, redis_pid: int, *, jobs: int, repeat: int) -> list[Found]:
    """One of them, so many times."""
    environment = {
        "REDIS_URL": redis_url, "KAFKA_BOOTSTRAP_SERVERS": place.kafka.bootstrap, "OPENAI_BASE_URL": place.api_url,
    }  # fmt: skip
    async with (
        running(peer, environment=environment, home=place.home) as front,
        Caller(front.http, "none", CALLERS + 20) as caller,
    ):

        async def ended(job_ids: Sequence[str]) -> list[str]:
            status, body = await caller.call("POST", "/ended", json.dumps(list(job_ids)).encode())
            if status != 200:
                raise RuntimeError(f"{peer.name}: {status} {body.decode()}")
            found: list[str] = json.loads(body)
            return found

        await whole_way(caller, ended, jobs=WARM, callers=20)
        found = []
        for _ in range(repeat):
            groups = {**front.pids, "Redis": [redis_pid], "Kafka": [place.kafka.pid], "stub": [place.api.pid]}
            cpu = Cpu(groups)
            rate = await whole_way(caller, ended, jobs=jobs, callers=CALLERS)
            found.append((rate, cpu.since(jobs)))
        return found


async def of_ours(place: Place, *, jobs: int, repeat: int) -> tuple[list[Found], Row]:
    """Ours: the whole way, and OpenAI's API."""
    async with place.deployment() as deployment:
        ingress, _ = await _all_roles(deployment)
        token, _ = await _log_in(deployment, ingress)
        async with Caller(ingress.http, token, CALLERS + 50) as caller:
            await end_to_end(place, deployment, caller, jobs=WARM, callers=20)
            found = [await end_to_end(place, deployment, caller, jobs=jobs, callers=CALLERS) for _ in range(repeat)]
            return found, await sync("ours", caller, jobs=jobs // 2)


async def sync(name: str, caller: Caller, *, jobs: int, model: str = "openai/gpt-4o-mini") -> Row:
    """Calls that wait for their answer, by fifty callers."""

    async def call(n: int) -> tuple[int, float]:
        return await caller.post(V1, {"model": model, "messages": [{"role": "user", "content": f"sync {n}"}]})

    await at_once(call, count=WARM, callers=10)
    seconds, times, statuses = await at_once(call, count=jobs, callers=SYNC_CALLERS)
    if set(statuses) != {200}:
        raise RuntimeError(f"{name} answered {set(statuses)}")
    p50, p95 = percentiles(times)
    return f"POST {V1}, {SYNC_CALLERS} callers: {name}", f"{jobs / seconds:.0f}/s", f"p50 {p50:.0f}, p95 {p95:.0f} ms"


def row_of(name: str, found: list[Found], whose: Sequence[str]) -> Row:
    """Median by rate."""
    found = sorted(found, key=lambda one: one[0])
    rate, cpu = found[len(found) // 2]
    spread = ", ".join(f"{one:.0f}" for one, _ in found)
    told = ", ".join(f"{group} {ms:.2f}" for group, ms in cpu.items() if ms >= 0.005)
    return name, f"{rate:.0f} jobs/s ({spread})", f"{sum(cpu[one] for one in whose):.2f} ms ({told})"


async def compare(
    here: Place, redis_url: str, redis_pid: int, *, jobs: int, repeat: int, only: Sequence[str]
) -> list[Row]:
    """Ours first and last, so that it shows when the machine has changed meanwhile."""
    rows: list[Row] = []

    def tell(row: Row) -> None:
        rows.append(row)
        print(" | ".join(row), flush=True)

    admin = AIOKafkaAdminClient(bootstrap_servers=here.kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 4, 1) for topic in TOPICS])
    await admin.close()
    ours, ours_sync = await of_ours(here, jobs=jobs, repeat=repeat)
    tell(row_of("ours: five topics, a row in Postgres", ours, OURS))
    for peer in PEERS:
        if not only or peer.module.removesuffix("_peer") in only:
            found = await of_peer(here, peer, redis_url, redis_pid, jobs=jobs, repeat=repeat)
            tell(row_of(f"{peer.name}: one hop", found, ("worker", "front")))
    tell(ours_sync)
    if not only or "litellm" in only:
        async with litellm_proxy(here) as (base_url, key), Caller(base_url, key, SYNC_CALLERS) as caller:
            tell(await sync("LiteLLM's proxy, one worker", caller, jobs=jobs // 4, model="m"))
    again, again_sync = await of_ours(here, jobs=jobs, repeat=1)
    tell(row_of("ours, again", again, OURS))
    tell(again_sync)
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="make bench-peers")
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--repeat", type=int, default=3)
    names = [peer.module.removesuffix("_peer") for peer in PEERS]
    parser.add_argument("--only", nargs="+", default=(), choices=[*names, "litellm"])
    chosen = parser.parse_args()
    if not BIN.exists():
        raise SystemExit("the others are not installed: make bench-peers does it")
    with place() as here, redis(here.home) as (redis_url, redis_pid):
        comparing = compare(here, redis_url, redis_pid, jobs=chosen.jobs, repeat=chosen.repeat, only=chosen.only)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rows = runner.run(comparing)
    table = Table("what", "rate", "CPU a job of worker and front (of all), or latency")
    for row in rows:
        table.add_row(*row)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
