"""Comparisons on a real Postgres, with a pipeline that is played, and a client that asks."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import asyncpg
import httpx
from fastapi import FastAPI

from ingress.access.standings import Standings, UserRules
from ingress.comparisons import compare as module
from ingress.comparisons.compare_table import CompareRules
from ingress.comparisons.comparing import Comparing, Pace
from ingress.export_limit import Exports
from ingress.http.middleware import Edge
from ingress.http.problems import Problem
from ingress.http.problems import install as install_problems
from ingress.services import current_user
from ingress.submitting.cancel_requests import CancelRequests
from processors.limits.usage import Usage
from schemas.events import RateLimit, UserUpdated
from schemas.generation import GenerationConfig
from schemas.ids import JobIds
from schemas.requests import ChatRequest
from sinks.comparisons import ComparisonStore
from sinks.job_export import JobExport
from sinks.pool import Pool
from tests.conftest import SECRET
from tests.factories import user_updated
from tests.waiting import until

KILLED = "killed"


class Pipeline:
    """Stands for all behind the ingress: jobs get their row, and their outcome when it is told.

    `published`: each publication's job; `limit`: how many are admitted in all; `fails`: what the next ones end with,
    a Problem, or KILLED: the process dies between publishing and writing that down.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn, self.draining, self.answers = dsn, False, True
        self.published: list[UUID] = []
        self.prompts: dict[UUID, str] = {}
        self.requests: list[ChatRequest] = []
        self.cancelled: list[UUID] = []
        self.fails: list[Any] = []
        self.limit: int | None = None
        self.most_at_work = 0
        self.arrives = True
        self.metadata: dict[str, str] = {}

    async def publish_as(
        self, user: UserUpdated, request: ChatRequest, *, job_id: UUID, metadata: dict[str, str], is_repeated: bool
    ) -> RateLimit | None:
        fails = self.fails.pop(0) if self.fails else None
        if isinstance(fails, Problem) and fails.code != "outcome-unknown":
            raise fails
        self.published.append(job_id)
        self.prompts[job_id], self.metadata = request.prompt, metadata
        self.requests.append(request)
        if self.arrives:  # whatever becomes of who has published it
            await asyncio.shield(asyncio.ensure_future(self.store(job_id, user.user_id)))
        if isinstance(fails, Problem):
            raise fails
        if fails == KILLED:
            raise asyncio.CancelledError
        return None

    async def store(self, job_id: UUID, user_id: str = "alice") -> None:
        refused = self.limit is not None and self.limit <= 0
        if self.limit is not None:
            self.limit -= 1
        await self.execute(
            """INSERT INTO jobs (job_id, user_id, kind, status, accepted_at, expires_at)
               VALUES ($1, $2, 'chat', 'pending', now(), now() + interval '1 hour') ON CONFLICT DO NOTHING""",
            job_id, user_id,
        )  # fmt: skip
        rows = await self.execute("SELECT count(*) FROM jobs WHERE status = 'pending'")
        self.most_at_work = max(self.most_at_work, rows[0][0])
        if refused:
            await self.end(job_id, error={"code": "rate-limited", "message": "wait", "retry_after_s": 0.2})
        elif self.answers:
            await self.end(job_id)

    async def end(self, job_id: UUID, *, error: dict[str, Any] | None = None) -> None:
        result = None if error else {
            "model": "mini", "result": {"text": f"Answer to: {self.prompts[job_id]}", "finish_reason": "stop"},
            "usage": {"prompt_tokens": 10, "completion_tokens": 5}, "meta": {"provider": "openai"},
        }  # fmt: skip
        await self.execute(
            """UPDATE jobs SET status = $2, result = $3, error = $4, attempts = '[{"provider": "openai", "ms": 7}]',
                      finished_at = now() WHERE job_id = $1 AND status = 'pending'""",
            job_id, "error" if error else "completed", json.dumps(result) if result else None,
            json.dumps(error) if error else None,
        )  # fmt: skip

    async def execute(self, statement: str, *values: Any) -> list[Any]:
        connection = await asyncpg.connect(self.dsn)
        try:
            rows: list[Any] = await connection.fetch(statement, *values)
        finally:
            await connection.close()
        return rows

    # --- as the routes use it ---

    def count(self, user: UserUpdated) -> None: ...

    @property
    def asked(self) -> "Pipeline":
        return self

    def check_named(self, wanted: Sequence[str], generation: GenerationConfig) -> None:
        if not set(wanted) <= {"openai", "local"}:
            raise Problem(400, "no-such-provider", "present are: openai, local")

    async def publish(self, job_id: UUID, user_id: str) -> None:
        self.cancelled.append(job_id)
        if job_id in self.prompts:
            await self.end(job_id, error={"code": "cancelled", "message": "it was"})


class Scene:
    """One replica; `another` is a second one, or the same after a crash."""

    def __init__(self, dsn: str, pipeline: Pipeline, *, in_flight: int = 3, per_user: int = 2) -> None:
        self.dsn, self.pipeline, self.pace = dsn, pipeline, Pace(in_flight, 0.3, 3600)
        self.user: UserUpdated = user_updated()
        self.users: dict[str, UserUpdated] = {"alice": self.user}
        self.comparing = self.another()
        self.pool = Pool(dsn, size=4)
        self.store = ComparisonStore(self.pool)
        app = FastAPI()
        install_problems(app)
        app.include_router(module.router)
        app.dependency_overrides[current_user] = self.asking

        prices = {"openai/mini": {"input": 1.0, "output": 2.0}}
        self.services = app.state.services = SimpleNamespace(
            submissions=pipeline, comparisons=self.store, comparing=self.comparing,
            standings=Standings(UserRules(60, 5, 10), Usage()),
            compare_rules=CompareRules(per_user, prices), exports=Exports(JobExport(self.pool)),  # type: ignore[arg-type]
        )  # fmt: skip
        edge = Edge(app, max_body_bytes=2_000_000)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://x")

    def another(self) -> Comparing:
        pipeline: Any = self.pipeline
        requests: CancelRequests = pipeline
        return Comparing(
            Pool(self.dsn, size=2), pipeline, requests, JobIds([SECRET]), user_of=lambda name: self.users.get(name),
            users_known=lambda: True, pace=self.pace,
        )  # fmt: skip

    async def asking(self) -> UserUpdated:
        return self.user

    async def ask(self, prompts: int, variants: int = 1, **more: Any) -> str:
        body = {"prompts": [f"p{n}" for n in range(prompts)], "variants": [{"provider": "openai"}] * variants, **more}
        reply = await self.client.post("/compare", json=body)
        assert reply.status_code == 202, reply.text
        comparison_id: str = reply.json()["comparison_id"]
        assert reply.headers["location"] == f"/compare/{comparison_id}"
        return comparison_id

    async def view(self, comparison_id: str) -> dict[str, Any]:
        reply = await self.client.get(f"/compare/{comparison_id}")
        assert reply.status_code == 200, reply.text
        view: dict[str, Any] = reply.json()
        return view

    async def ended(self, comparison_id: str) -> dict[str, Any]:
        async def found() -> Any:
            view = await self.view(comparison_id)
            return view if view["status"] in ("completed", "cancelled") else None

        view: dict[str, Any] = await until(found, within_s=20)
        return view


@asynccontextmanager
async def at_work(replica: Comparing) -> AsyncIterator[Comparing]:
    replica.start()
    try:
        yield replica
    finally:
        await replica.stop()
