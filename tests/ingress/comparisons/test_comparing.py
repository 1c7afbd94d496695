"""Comparisons on a real Postgres, with a pipeline that is played: what is asked, how often, and what is shown."""

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import pytest

from ingress.comparisons import comparing
from ingress.http.problems import Problem
from schemas.ids import JobIds
from sinks.job_deletion import JobDeletion
from tests.conftest import SECRET
from tests.ingress.comparing_scene import KILLED, Scene, at_work
from tests.waiting import until

pytestmark = pytest.mark.integration


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


async def test_a_cell_whose_job_is_deleted_says_so_and_is_not_asked_again(scene: Scene) -> None:
    """Also where that was before anybody has looked at its outcome."""
    scene.pipeline.answers = False
    comparison_id, deletion = await scene.ask(3), JobDeletion(scene.pool)
    async with at_work(scene.comparing):
        await until(lambda: len(scene.pipeline.published) == 3)
    for job_id, error in zip(scene.pipeline.published, ({"code": "timeout", "message": "late"}, None), strict=False):
        await scene.pipeline.end(job_id, error=error)
        assert await deletion.delete(job_id, of="alice") == "deleted"
    await scene.pipeline.end(scene.pipeline.published[2])
    async with at_work(scene.another()):
        view = await scene.ended(comparison_id)
    assert sorted(cell["status"] for cell in view["cells"]) == ["completed", "deleted", "deleted"]
    assert len(scene.pipeline.published) == 3


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
