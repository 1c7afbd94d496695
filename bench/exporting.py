"""Memory of the ingress while all jobs are exported: `python -m bench.exporting --rows 1000000`.

Rows go straight into Postgres; then an admin exports everybody's over HTTP, once, and counts the lines.
"""

import argparse
import asyncio
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import httpx

from bench.measure import resident_mb
from embedded.services import start_kafka, start_postgres
from tests.conftest import KafkaForTests
from tests.deployment import Deployment, Process, client_of

INSERT = """
INSERT INTO jobs (job_id, user_id, kind, status, result, attempts, metadata, accepted_at, expires_at, finished_at)
SELECT gen_random_uuid(), 'user-' || n % 500, 'chat', 'completed',
       jsonb_build_object('model', 'gpt-4o-mini', 'prompt', 'Question ' || n, 'generation_config', '{}'::jsonb,
           'usage', jsonb_build_object('prompt_tokens', 7, 'completion_tokens', 90, 'total_tokens', 97),
           'result', jsonb_build_object('text', repeat(md5(n::text) || ' ', 12), 'finish_reason', 'stop'),
           'meta', jsonb_build_object('provider', 'openai')),
       '[{"provider": "openai", "ms": 400}]'::jsonb, '{}'::jsonb, accepted, accepted, accepted
FROM generate_series($1::bigint, $2::bigint) AS n,
     LATERAL (SELECT timestamptz '2026-01-01' + n * interval '1 ms') t (accepted)
"""
AT_ONCE = 50_000


async def fill(dsn: str, rows: int) -> None:
    """So many completed jobs of 500 users, those included that are there already."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SET synchronous_commit = off")
        there = await connection.fetchval("SELECT count(*) FROM jobs")
        for first in range(there + 1, rows + 1, AT_ONCE):
            await connection.execute(INSERT, first, min(rows, first + AT_ONCE - 1))
    finally:
        await connection.close()


async def read(client: httpx.AsyncClient, ingress: Process) -> tuple[int, int, float]:
    """Lines, bytes, and the most that the ingress had resident, in MB."""
    lines = size = 0
    peak = resident_mb(ingress)
    looked = time.monotonic()
    async with client.stream("GET", "/jobs/export") as reply:
        reply.raise_for_status()
        async for chunk in reply.aiter_raw():
            lines, size = lines + chunk.count(b"\n"), size + len(chunk)
            if time.monotonic() - looked > 0.1:
                looked, peak = time.monotonic(), max(peak, resident_mb(ingress))
    return lines, size, max(peak, resident_mb(ingress))


async def measure(deployment: Deployment, rows: int) -> None:
    """Print the figures."""
    began = time.monotonic()
    await fill(deployment.dsn, rows)
    print(f"{rows:,} rows are there, after {time.monotonic() - began:.0f} s", flush=True)
    ingress = deployment.start("ingress")
    await deployment.ready()
    async with client_of(ingress) as client:
        idle = resident_mb(ingress)
        began = time.monotonic()
        lines, size, peak = await read(client, ingress)
        seconds = time.monotonic() - began
    if lines != rows:
        raise RuntimeError(f"{lines} lines of {rows} rows")
    print(f"{lines:,} lines, {size / 1e6:,.0f} MB in {seconds:.1f} s: {lines / seconds:,.0f} lines/s")
    print(f"ingress: {idle:.0f} MB resident before, {peak:.0f} MB at most while it exported")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.exporting")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--home", type=Path, help="a folder to keep the rows in, for another time")
    given = parser.parse_args()
    with ExitStack() as stack:
        home = given.home or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home.mkdir(exist_ok=True)
        home.chmod(0o755)
        kafka, postgres = start_kafka(home / "kafka"), start_postgres(home / "postgres")
        stack.callback(postgres.stop)
        stack.callback(kafka.stop)
        environment = {"ALLOWED_PROVIDERS": "openai", "OPENAI_API_KEY": "stub"}
        deployment = Deployment(KafkaForTests(kafka.bootstrap), postgres.dsn, "bench.", home, environment)
        asyncio.run(deployment.set_up(partitions=4))
        stack.callback(deployment.close)
        asyncio.run(measure(deployment, given.rows))


main()
