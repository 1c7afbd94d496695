"""`GET /jobs/export` on a real Postgres: whose jobs, how many at once, and how much memory."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from ingress import export as module
from ingress.access.standings import Standings, UserRules
from ingress.export_limit import Exports
from ingress.http.middleware import Edge
from ingress.http.problems import install as install_problems
from ingress.services import current_user
from processors.errors import RetryableError
from processors.limits.usage import Usage
from schemas.events import UserUpdated
from sinks.job_export import JobExport, Page, Position, Wanted
from sinks.pool import Pool
from tests.factories import user_updated
from tests.sinks.test_job_export import BEGAN, store

pytestmark = pytest.mark.integration


class Failing(JobExport):
    """Fails so many times from the third page on."""

    def __init__(self, pool: Pool, failures: int) -> None:
        super().__init__(pool, page_bytes=1)
        self.failures, self.asked = failures, 0

    async def page(self, wanted: Wanted, position: Position) -> Page:
        self.asked += 1
        if self.asked > 2 and self.failures:
            self.failures -= 1
            raise RetryableError("postgres-unavailable", "Postgres does not answer")
        return await super().page(wanted, position)


class Scene:
    """The one route, with whoever asks."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.user, self.counted = pool, user_updated(), 0
        self.exports = Exports(JobExport(pool))
        app = FastAPI()
        install_problems(app)
        app.include_router(module.router)
        app.dependency_overrides[current_user] = self.asking
        submissions = SimpleNamespace(draining=False, count=self.count)
        app.state.services = SimpleNamespace(
            exports=self.exports, submissions=submissions, standings=Standings(UserRules(60, 5, 10), Usage())
        )
        self.app = Edge(app, max_body_bytes=1000)

    async def asking(self) -> UserUpdated:
        return self.user

    def count(self, user: UserUpdated) -> None:
        self.counted += 1

    async def get(self, **query: str) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/jobs/export", params=query)

    async def lines(self, **query: str) -> list[dict[str, Any]]:
        reply = await self.get(**query)
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"] == "application/jsonl"
        assert reply.content.endswith(b"\n") or not reply.content
        return [json.loads(line) for line in reply.content.split(b"\n")[:-1]]

    async def read(self, take: Any, **query: str) -> None:
        """By hand: `take` is told of each chunk, and may take its time."""
        sent: asyncio.Event = asyncio.Event()

        async def receive() -> Any:
            if not sent.is_set():
                sent.set()
                return {"type": "http.request", "body": b"", "more_body": False}
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await take(message["body"])

        path = "/jobs/export"
        await self.app(
            {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": [], "root_path": "",
             "query_string": urlencode(query).encode(), "http_version": "1.1", "scheme": "http", "client": None,
             "server": ("x", 80)}, receive, send,
        )  # fmt: skip


@pytest.fixture
async def scene(database: str) -> AsyncIterator[Scene]:
    pool = Pool(database, size=1)
    yield Scene(pool)
    await pool.close()


async def test_own_jobs_come_as_they_are_polled_and_an_admin_gets_everybodys(scene: Scene, database: str) -> None:
    job_ids = [str(job_id) for job_id in await store(database, {"text": "a\u2028b\n"}, {"user_id": "bob"}, {})]
    first, second = await scene.lines()
    assert first == {
        "user_id": "alice", "job_id": job_ids[0], "kind": "chat", "status": "completed",
        "accepted_at": "2026-01-02T03:04:05Z",
        "result": {"result": {"text": "a\u2028b\n"}, "meta": {"provider": "openai"}},
        "attempts": [{"provider": "first", "ms": 1}, {"provider": "openai", "ms": 2}],
    }  # fmt: skip
    assert second["job_id"] == job_ids[2]
    assert await scene.lines(user_id="alice") == [first, second]
    problem = (await scene.get(user_id="bob")).json()
    assert (problem["status"], problem["code"]) == (403, "not-allowed")
    scene.user = user_updated(user_id="root", role="admin")
    assert [job["job_id"] for job in await scene.lines()] == job_ids
    assert [job["job_id"] for job in await scene.lines(user_id="bob")] == [job_ids[1]]
    assert scene.counted == 4  # it costs something: who makes far too many calls is told so


async def test_it_goes_on_from_the_last_line_and_by_time(scene: Scene, database: str) -> None:
    await store(database, *({} for _ in range(5)))
    lines = await scene.lines()
    assert await scene.lines(cursor=f"{lines[1]['accepted_at']}/{lines[1]['job_id']}") == lines[2:]
    assert await scene.lines(**{"from": lines[1]["accepted_at"], "to": lines[3]["accepted_at"]}) == lines[1:3]
    for query in ({"cursor": "x"}, {"from": "yesterday"}, {"format": "xml"}, {"status": "odd"}, {"provider": "A B"}):
        assert (await scene.get(**query)).status_code in (400, 422), query
    assert scene.exports.under_way == {}


async def test_so_many_at_once_and_no_more(scene: Scene, database: str) -> None:
    await store(database, {})
    scene.exports.under_way.update({"alice": 2})
    reply = await scene.get()
    assert (reply.status_code, reply.json()["code"]) == (429, "too-many-exports")
    assert int(reply.headers["retry-after"]) > 0
    scene.user = user_updated(user_id="bob")
    assert await scene.lines() == []
    scene.exports.under_way.update({f"user-{n}": 1 for n in range(6)})
    assert (await scene.get()).status_code == 429


async def test_while_postgres_is_away_nothing_is_begun(scene: Scene, database: str) -> None:
    scene.exports.jobs = JobExport(Pool("postgresql://nobody@127.0.0.1:1/none", size=1))
    reply = await scene.get()
    assert (reply.status_code, reply.json()["code"]) == (503, "postgres-unavailable")
    assert scene.exports.under_way == {}


@pytest.mark.parametrize(("failures", "is_cut"), [(2, False), (100, True)])
async def test_postgres_that_comes_back_soon_is_waited_for_and_else_the_end_is_missing(
    scene: Scene, database: str, monkeypatch: pytest.MonkeyPatch, failures: int, is_cut: bool
) -> None:
    monkeypatch.setattr(module, "PAUSES_S", (0.01, 0.01, 0.01))
    await store(database, *({} for _ in range(10)))
    scene.exports.jobs = Failing(scene.pool, failures)
    chunks: list[bytes] = []

    async def take(chunk: bytes) -> None:
        chunks.append(chunk)

    await scene.read(take)
    assert (chunks[-1] != b"") == is_cut  # an empty one is the end
    assert b"".join(chunks).count(b"\n") == (2 if is_cut else 10)
    assert scene.exports.under_way == {}


async def test_a_slow_reader_holds_no_connection(scene: Scene, database: str) -> None:
    await store(database, *({"text": "x" * 100_000} for _ in range(20)))
    looked = 0

    async def take(chunk: bytes) -> None:
        nonlocal looked
        async with asyncio.timeout(2), scene.pool.connection() as connection:  # the pool has one
            looked += await connection.fetchval("SELECT 1")

    await scene.read(take)
    assert looked > 5


async def test_memory_does_not_grow_with_the_number_of_jobs(scene: Scene, database: str) -> None:
    connection = await asyncpg.connect(database)
    try:  # 30,000 of 2 kB: 60 MB at the least, if they were all held
        await connection.execute(
            """INSERT INTO jobs (job_id, user_id, kind, status, result, accepted_at, expires_at)
               SELECT gen_random_uuid(), 'alice', 'chat', 'completed',
                      jsonb_build_object('result', jsonb_build_object('text', repeat(md5(n::text), 62))),
                      $1::timestamptz + n * interval '1 ms', $1
               FROM generate_series(1, 30000) AS n""",
            BEGAN,
        )  # fmt: skip
    finally:
        await connection.close()
    counted = total = 0

    async def take(chunk: bytes) -> None:
        nonlocal counted, total
        counted += chunk.count(b"\n")
        total += len(chunk)

    await scene.read(take, to=(BEGAN.isoformat()))  # what is loaded once is loaded
    tracemalloc.start()
    try:
        await scene.read(take)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert counted == 30_000
    assert total > 60_000_000
    assert peak < 6_000_000, f"{peak / 1e6:.1f} MB"
