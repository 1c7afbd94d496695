"""Comparisons on a real Postgres, with a pipeline that is played: what is asked, how often, and what is shown."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from ingress import compare as module
from ingress import comparing
from ingress.cancel_requests import CancelRequests
from ingress.compare_table import CompareRules
from ingress.comparing import Comparing, Pace
from ingress.export_limit import Exports
from ingress.middleware import Edge
from ingress.problems import Problem
from ingress.problems import install as install_problems
from ingress.services import current_user
from schemas.events import RateLimit, UserUpdated
from schemas.ids import JobIds
from schemas.requests import ChatRequest, GenerationConfig
from sinks.comparisons import ComparisonStore, Grid
from sinks.job_export import JobExport
from sinks.pool import Pool
from tests.conftest import SECRET
from tests.factories import user_updated
from tests.waiting import until

pytestmark = pytest.mark.integration
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

    def check_offered(self, wanted: Sequence[str], generation: GenerationConfig) -> None:
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


@pytest.fixture
async def scene(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(comparing, "MAX_LOOK_S", 0.1)
    monkeypatch.setattr(comparing, "LOOK_FOR_NEW_EVERY_S", 0.1)
    monkeypatch.setattr(comparing, "LEASE_S", 1.0)
    monkeypatch.setattr(comparing, "RENEW_EVERY_S", 0.2)
    scene = Scene(database, Pipeline(database))
    yield scene
    await scene.client.aclose()
    await scene.comparing.stop()
    await scene.pool.close()


@asynccontextmanager
async def at_work(replica: Comparing) -> AsyncIterator[Comparing]:
    replica.start()
    try:
        yield replica
    finally:
        await replica.stop()


async def test_every_cell_is_asked_once_and_the_table_has_its_answer(scene: Scene) -> None:
    comparison_id = await scene.ask(5, 2, instruction="Be brief", timeout=7.0)
    assert (await scene.view(comparison_id))["progress"] == {"cells": 10, "rate_limited": 0, "waiting": 10}
    async with at_work(scene.comparing):
        view = await scene.ended(comparison_id)
    assert Counter(scene.pipeline.prompts.values()) == {f"p{n}": 2 for n in range(5)}
    assert len(scene.pipeline.published) == 10
    assert {(request.instruction, request.timeout, request.provider) for request in scene.pipeline.requests} == {
        ("Be brief", 7.0, "openai")
    }
    assert scene.pipeline.metadata["comparison"] == comparison_id
    assert view["progress"] == {"cells": 10, "rate_limited": 0, "completed": 10}
    for number, cell in enumerate(view["cells"]):
        assert (cell["prompt"], cell["variant"], cell["status"]) == (number // 2, number % 2, "completed")
        assert cell["text"] == f"Answer to: p{number // 2}"
        assert (cell["latency_ms"], cell["cost"], cell["usage"]["completion_tokens"]) == (7, 0.00002, 5)
        assert JobIds([SECRET]).belongs(UUID(cell["job_id"]), "alice")
    assert view["variants"][0]["latency_ms"] == {"p50": 7, "p95": 7}
    reports = {name: await scene.client.get(f"/compare/{comparison_id}/report?format={name}") for name in
               ("json", "csv", "html")}  # fmt: skip
    assert len(reports["json"].json()["cells"]) == 10
    assert len(reports["csv"].text.splitlines()) == 11
    assert reports["html"].text.count("Answer to: p") == 10
    assert "sandbox" in reports["html"].headers["content-security-policy"]


async def test_so_many_are_at_work_and_no_more(scene: Scene) -> None:
    scene.pipeline.answers = False
    comparison_id = await scene.ask(9)
    async with at_work(scene.comparing):
        for done in range(9):
            await until(lambda done=done: len(scene.pipeline.published) == min(9, 3 + done))
            await asyncio.sleep(0.15)  # longer than a look
            assert len(scene.pipeline.published) == min(9, 3 + done)
            await scene.pipeline.end(scene.pipeline.published[done])
        await scene.ended(comparison_id)
    assert scene.pipeline.most_at_work == 3


@pytest.mark.parametrize("killed_at", [0, 1, 4])
async def test_after_a_crash_it_goes_on_where_it_was_and_nothing_is_asked_twice(scene: Scene, killed_at: int) -> None:
    scene.pipeline.fails = [None] * killed_at + [KILLED]
    comparison_id = await scene.ask(6)
    scene.comparing.start()
    await until(lambda: len(scene.pipeline.published) == killed_at + 1)
    await until(lambda: all(task.done() for task in scene.comparing._running.values()))
    for task in [*scene.comparing._tasks, *scene.comparing._running.values()]:
        task.cancel()  # nothing is given back: it is dead
    async with at_work(scene.another()):
        view = await scene.ended(comparison_id)
    assert view["progress"]["completed"] == 6
    assert len(scene.pipeline.published) == 6


async def test_what_may_not_have_arrived_is_published_again_as_the_same_job(scene: Scene) -> None:
    scene.pipeline.arrives = False
    scene.pipeline.fails = [Problem(504, "outcome-unknown", "who knows")]
    comparison_id = await scene.ask(1)
    async with at_work(scene.comparing):
        await until(lambda: len(scene.pipeline.published) == 2)
        await scene.pipeline.store(scene.pipeline.published[0])
        view = await scene.ended(comparison_id)
    assert len(set(scene.pipeline.published)) == 1
    assert view["progress"]["completed"] == 1


async def test_one_whose_arrival_is_known_is_not_published_again(scene: Scene) -> None:
    scene.pipeline.answers = False
    scene.pipeline.fails = [Problem(504, "outcome-unknown", "who knows")]
    comparison_id = await scene.ask(1)
    async with at_work(scene.comparing):
        await until(lambda: len(scene.pipeline.published) == 1)
        await asyncio.sleep(3 * scene.pace.unknown_after_s)
        (job_id,) = scene.pipeline.published
        await scene.pipeline.end(job_id)
        assert (await scene.ended(comparison_id))["progress"]["completed"] == 1


async def test_a_cell_over_the_rate_waits_is_tried_again_and_it_shows(scene: Scene) -> None:
    scene.pipeline.limit = 2
    comparison_id = await scene.ask(4)
    async with at_work(scene.comparing):

        async def waits() -> Any:
            view = await scene.view(comparison_id)
            return view if "waits_for" in view and "waiting" in view["progress"] else None

        view = await until(waits)
        assert view["waits_for"]["code"] == "rate-limited"
        assert view["progress"]["rate_limited"] >= 1
        assert [cell for cell in view["cells"] if cell.get("rate_limited") and cell["status"] == "waiting"]
        scene.pipeline.limit = None
        view = await scene.ended(comparison_id)
    assert view["progress"]["completed"] == 4
    assert "waits_for" not in view


async def test_a_refusal_of_the_second_publication_is_not_taken_for_one_of_the_first(scene: Scene) -> None:
    scene.pipeline.arrives = False
    comparison_id = await scene.ask(1)
    scene.pipeline.fails = [Problem(504, "outcome-unknown", "who knows")]
    async with at_work(scene.comparing):
        await until(lambda: len(scene.pipeline.published) == 2)
        (job_id,) = set(scene.pipeline.published)
        scene.pipeline.limit = 0
        await scene.pipeline.store(job_id)  # refused; the one before it is still at work
        await asyncio.sleep(0.5)
        assert set(scene.pipeline.published) == {job_id}
        await scene.pipeline.execute("UPDATE jobs SET status = 'pending', error = NULL")
        await scene.pipeline.end(job_id)
        assert (await scene.ended(comparison_id))["progress"]["completed"] == 1


@pytest.mark.parametrize(
    "problem",
    [Problem(429, "rate-limited", "far more", retry_after_s=0.1),
     Problem(503, "not-accepted", "Kafka", headers={"Retry-After": "0"}), Problem(400, "no-such-provider", "no")],
)  # fmt: skip
async def test_what_is_not_taken_now_is_given_back_and_asked_later(
    scene: Scene, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "UNTOLD_WAIT_S", 0.1)
    scene.pipeline.fails = [problem]
    comparison_id = await scene.ask(2)
    async with at_work(scene.comparing):
        view = await scene.ended(comparison_id)
    assert view["progress"]["completed"] == 2
    assert view["progress"]["rate_limited"] == int(problem.status == 429)
    assert len(set(scene.pipeline.published)) == 2


async def test_a_cell_that_is_never_taken_ends_alone(scene: Scene) -> None:
    scene.pipeline.fails = [None, Problem(400, "parameter-not-offered", "openai has no top_k")]
    comparison_id = await scene.ask(3)
    async with at_work(scene.comparing):
        view = await scene.ended(comparison_id)
    assert view["progress"] == {"cells": 3, "rate_limited": 0, "completed": 2, "error": 1}
    assert view["cells"][1]["error"] == {"code": "parameter-not-offered", "message": "openai has no top_k"}


async def test_a_cell_that_this_version_does_not_take_ends_alone(scene: Scene) -> None:
    comparison_id = await scene.ask(2)
    await scene.pipeline.execute("""UPDATE comparisons SET prompts = '["", "p1"]'""")
    async with at_work(scene.comparing):
        view = await scene.ended(comparison_id)
    assert [cell.get("error", {}).get("code") for cell in view["cells"]] == ["invalid-event", None]


async def test_a_cancelled_one_asks_nothing_more_and_cancels_what_is_at_work(scene: Scene) -> None:
    scene.pipeline.answers = False
    comparison_id = await scene.ask(9)
    async with at_work(scene.comparing):
        await until(lambda: len(scene.pipeline.published) == 3)
        await scene.pipeline.end(scene.pipeline.published[0])
        await until(lambda: len(scene.pipeline.published) == 4)
        reply = await scene.client.post(f"/compare/{comparison_id}/cancel")
        assert (reply.status_code, reply.json()["status"]) == (202, "cancelling")
        view = await scene.ended(comparison_id)
        assert view["status"] == "cancelled"
        assert view["progress"] == {"cells": 9, "rate_limited": 0, "completed": 1, "cancelled": 8}
        assert set(scene.pipeline.published[1:]) == set(scene.pipeline.cancelled)
        assert len(scene.pipeline.published) == 4
        reply = await scene.client.post(f"/compare/{comparison_id}/cancel")
        assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")


async def test_a_cancel_is_seen_at_once_also_while_nobody_runs_it(scene: Scene) -> None:
    comparison_id = await scene.ask(3)
    assert (await scene.client.post(f"/compare/{comparison_id}/cancel")).status_code == 202
    view = await scene.view(comparison_id)
    assert (view["status"], view["progress"]["cancelled"]) == ("cancelling", 3)
    async with at_work(scene.comparing):
        assert (await scene.ended(comparison_id))["status"] == "cancelled"
    assert scene.pipeline.published == []


async def test_a_cancel_that_nobody_heard_is_said_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "CANCEL_AGAIN_S", 0.1)
    scene.pipeline.answers = False
    comparison_id = await scene.ask(1)
    async with at_work(scene.comparing):
        await until(lambda: len(scene.pipeline.published) == 1)
        (job_id,) = scene.pipeline.published
        prompt = scene.pipeline.prompts.pop(job_id)  # so long it does not hear
        await scene.client.post(f"/compare/{comparison_id}/cancel")
        await until(lambda: len(scene.pipeline.cancelled) >= 3)
        scene.pipeline.prompts[job_id] = prompt
        assert (await scene.ended(comparison_id))["progress"]["cancelled"] == 1


async def test_a_replica_that_stops_hands_over_at_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "LEASE_S", 3600.0)
    scene.pipeline.answers = False
    comparison_id = await scene.ask(4)
    other = scene.another()
    async with at_work(scene.comparing):
        await until(lambda: len(scene.pipeline.published) == 3)
        other.start()
        await asyncio.sleep(0.3)
        assert not other._running  # one at a time
        await other.stop()
        scene.pipeline.draining = True  # it stops, and still has calls to answer
        await until(lambda: scene.comparing._tasks[0].done())
        scene.pipeline.draining, scene.pipeline.answers = False, True
        async with at_work(scene.another()):
            for job_id in scene.pipeline.published[:3]:
                await scene.pipeline.end(job_id)
            assert (await scene.ended(comparison_id))["progress"]["completed"] == 4
    assert len(scene.pipeline.published) == 4


async def test_a_stop_just_when_a_new_one_comes_is_a_stop(scene: Scene) -> None:
    for _ in range(5):
        replica = scene.another()
        replica.start()
        await asyncio.sleep(0.05)
        replica.look()
        async with asyncio.timeout(2):
            await replica.stop()


async def test_two_replicas_ask_no_more_than_one_also_when_a_lease_is_lost(scene: Scene) -> None:
    comparison_id = await scene.ask(40)
    async with at_work(scene.comparing), at_work(scene.another()):
        for _ in range(10):  # stolen from whoever has it
            await scene.pipeline.execute("UPDATE comparisons SET leased_until = now() WHERE state = 'running'")
            await asyncio.sleep(0.05)
        view = await scene.ended(comparison_id)
    assert view["progress"]["completed"] == 40
    assert Counter(scene.pipeline.prompts.values()) == {f"p{n}": 1 for n in range(40)}  # each is one job


async def test_users_who_are_gone_and_time_that_is_over_end_it(scene: Scene) -> None:
    comparison_id = await scene.ask(2)
    del scene.users["alice"]
    async with at_work(scene.comparing):
        view = await scene.ended(comparison_id)
        assert {cell["error"]["code"] for cell in view["cells"]} == {"user-disabled"}
        scene.users["alice"] = scene.user
        scene.pipeline.limit = 0
        comparison_id = await scene.ask(2)
        await scene.pipeline.execute("UPDATE comparisons SET expires_at = now()")
        view = await scene.ended(comparison_id)
        assert {cell["error"]["code"] for cell in view["cells"]} == {"expired"}


async def test_a_job_without_a_trace_is_not_waited_for_for_ever(scene: Scene) -> None:
    scene.pipeline.arrives = False
    comparison_id = await scene.ask(1)
    async with at_work(scene.comparing):
        await until(lambda: len(scene.pipeline.published) == 1)
        await scene.pipeline.execute("UPDATE comparison_cells SET published_at = now() - interval '2 hours'")
        view = await scene.ended(comparison_id)
    assert view["cells"][0]["error"] == {"code": "unexpected-error", "message": "there is no trace of the cell's job"}


# --- what is refused ---


async def refused(scene: Scene, status: int, code: str, **body: Any) -> dict[str, Any]:
    whole = {"prompts": ["p"], "variants": [{}]} | body
    reply = await scene.client.post("/compare", json=whole)
    problem: dict[str, Any] = reply.json()
    assert (reply.status_code, problem["code"]) == (status, code), reply.text
    return problem


async def test_a_grid_has_bounds(scene: Scene) -> None:
    bodies: list[dict[str, Any]] = [
        {"prompts": []}, {"variants": []}, {"prompts": ["p"] * 1001}, {"variants": [{}] * 101},
        {"prompts": ["p"] * 501, "variants": [{}, {}]}, {"prompts": ["x" * 20_001]}, {"prompts": [" "]},
        {"variants": [{"colour": "red"}]}, {"variants": [{"generation_config": {"temperature": 3.0}}]},
        {"timeout": 121.0}, {"instruction": "x" * 5001}, {"prompts": "p"},
    ]  # fmt: skip
    for body in bodies:
        await refused(scene, 422, "invalid-body", **body)
    await refused(scene, 400, "no-such-provider", variants=[{}, {"provider": "nobody"}])
    assert (await scene.pipeline.execute("SELECT count(*) FROM comparisons"))[0][0] == 0
    await scene.ask(500, 2)  # the largest


async def test_a_user_has_so_many_under_way(scene: Scene) -> None:
    scene.users["bob"] = user_updated(user_id="bob")
    replies = await asyncio.gather(
        *(scene.client.post("/compare", json={"prompts": ["p"], "variants": [{}]}) for _ in range(6))
    )
    assert Counter(reply.status_code for reply in replies) == {202: 2, 429: 4}
    problem = await refused(scene, 429, "too-many-comparisons")
    assert problem["retry_after_s"] == 30
    scene.user = scene.users["bob"]
    await scene.ask(1)
    scene.user = scene.users["alice"]
    async with at_work(scene.comparing):
        for reply in replies:
            if reply.status_code == 202:
                await scene.ended(reply.json()["comparison_id"])
        await scene.ask(1)


async def test_another_users_is_as_unknown_as_none(scene: Scene) -> None:
    comparison_id = await scene.ask(1)
    for user, status in ((user_updated(user_id="mallory"), 404), (user_updated(user_id="root", role="admin"), 200)):
        scene.user = user
        for path in ("", "/report", "/report?format=html"):
            assert (await scene.client.get(f"/compare/{comparison_id}{path}")).status_code == status
        reply = await scene.client.post(f"/compare/{comparison_id}/cancel")
        assert reply.status_code == (404 if status == 404 else 202)
        for path in ("", "/report"):
            assert (await scene.client.get(f"/compare/{uuid4()}{path}")).status_code == 404
    assert (await scene.pipeline.execute("SELECT cancel_requested_at IS NULL FROM comparisons"))[0][0] is False


async def test_the_same_key_is_the_same_comparison(scene: Scene) -> None:
    body = {"prompts": ["p"], "variants": [{}]}
    replies = [await scene.client.post("/compare", json=body, headers={"Idempotency-Key": "k"}) for _ in range(4)]
    assert len({reply.json()["comparison_id"] for reply in replies}) == 1  # and more than two may be asked for
    assert [reply.headers.get("idempotency-replayed") for reply in replies] == [None, "true", "true", "true"]
    other = await scene.client.post("/compare", json=body | {"prompts": ["q"]}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


async def test_reports_are_bounded_in_number(scene: Scene) -> None:
    comparison_id = await scene.ask(1)
    scene.services.exports.under_way["alice"] = 2
    reply = await scene.client.get(f"/compare/{comparison_id}/report")
    assert (reply.status_code, reply.json()["code"]) == (429, "too-many-exports")


async def test_a_claim_is_for_the_lease_alone(scene: Scene) -> None:
    grid = Grid(["p"], [{}], {})
    comparison_id, _ = await scene.store.create(uuid4(), "alice", grid, limit=1, lifetime=timedelta(hours=1))
    mine, others = uuid4(), uuid4()
    assert await scene.store.lease(mine, for_s=60, limit=5) == [comparison_id]
    assert await scene.store.lease(others, for_s=60, limit=5) == []
    assert await scene.store.claim(comparison_id, others, uuid4(), in_flight=5) is None
    assert await scene.store.settle(comparison_id, others, lost_after_s=60, lost={}) is None
    assert not await scene.store.finish(comparison_id, mine)
    assert await scene.store.claim(comparison_id, mine, uuid4(), in_flight=0) is None
    assert await scene.store.claim(comparison_id, mine, uuid4(), in_flight=1) is not None
    await scene.pipeline.execute("UPDATE comparisons SET leased_until = now() - interval '1 s'")
    await scene.store.renew(mine, [comparison_id], for_s=60)  # what was held too long is not held again
    assert await scene.store.lease(others, for_s=60, limit=5) == [comparison_id]
