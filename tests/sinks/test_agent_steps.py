"""Agents' steps in Postgres: written once, decided once, remembered by whose they are."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from processors.agents.ports import Observed, PlannedStep, StoredStep
from processors.errors import PermanentError
from processors.ports import DueEvent
from processors.run_tool import NAME, REQUIRES_ACTION
from schemas.envelope import Record
from schemas.events import AgentStep, Job
from sinks.agent_steps import AgentStepStore
from sinks.due_store import DueStore
from sinks.pool import Pool
from tests.factories import job

pytestmark = pytest.mark.integration
PLANNED = PlannedStep("why", "search", {"query": "bees", "top_k": 3}, "m-1", 100, 10, 2)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=6)
    yield pool
    await pool.close()


async def stored(store: AgentStepStore, of: Job, step: int, text: str | None = "seen", **more: Any) -> None:
    await store.plan(of, more.pop("agent_id", "a"), step, PLANNED, goal="g")
    if text is not None:
        await store.observe(of, step, Observed(text, **more))


async def test_a_step_is_written_once_whoever_comes_second(pool: Pool) -> None:
    store, of = AgentStepStore(pool), job()
    assert await store.get(of, 1) is None
    plans = [PlannedStep("", "search", {"query": str(n)}) for n in range(8)]
    first = await asyncio.gather(*(store.plan(of, "a", 1, plan, goal="g") for plan in plans))
    assert len({str(one) for one in first}) == 1
    seen = await asyncio.gather(
        *(store.observe(of, 1, Observed(f"{n}", n / 10, is_untrusted=n % 2 == 0)) for n in range(8))
    )
    assert len({str(one) for one in seen}) == 1
    observed = seen[0].observed
    assert observed is not None
    n = int(observed.text)  # all of it is of one of them
    assert (observed.risk, observed.is_untrusted) == (n / 10, n % 2 == 0)
    assert await store.get(of, 1) == seen[0]
    another_run = of.model_copy(update={"run": 2})
    assert await store.get(another_run, 1) is None


async def test_it_comes_out_as_it_went_in(pool: Pool) -> None:
    store, of = AgentStepStore(pool), job()
    planned = PlannedStep('ы\n"', "external_api", {"a": [1, 2.5, None, True, {"b": "日"}]}, "m", 3, 4, 1)
    assert (await store.plan(of, "a", 1, planned, goal="g")).planned == planned
    assert (await store.observe(of, 1, Observed("ы", 0.5, is_untrusted=True))).observed == Observed("ы", 0.5, True)


async def test_the_history_is_that_of_the_newest_run_of_each_step(pool: Pool) -> None:
    store, of = AgentStepStore(pool), job()
    await store.plan(of, "a", 0, PlannedStep("", "COMPLEX"), goal="g")  # a decision, which is no step
    for step in (1, 2):
        await stored(store, of, step, f"first {step}")
    await stored(store, of.model_copy(update={"run": 2}), 2, None)
    assert [(one.step, one.observation) for one in await store.history(of.job_id)] == [(1, "first 1"), (2, None)]


async def test_steps_come_back_whole_each_of_the_newest_run_up_to_this_one(pool: Pool) -> None:
    store, of = AgentStepStore(pool), job()
    for step in (1, 2, 3, 4):
        await stored(store, of, step, f"first {step}", risk=0.5, is_untrusted=True)
    await stored(store, of, 5, None)
    second, third = (of.model_copy(update={"run": run}) for run in (2, 3))
    await stored(store, second, 3, "second 3")
    await stored(store, third, 4, "third 4")
    await stored(store, job(), 1, "another job's")
    found = await store.whole(second, (1, 3, 4, 5, 6))
    assert [(one.step, one.observation) for one in found] == [(1, "first 1"), (3, "second 3"), (4, "first 4")]
    assert found[0] == AgentStep(
        step=1, thought="why", action="search", action_input={"query": "bees", "top_k": 3}, observation="first 1",
        risk=0.5, is_untrusted=True,
    )  # fmt: skip


async def test_many_at_once_are_each_their_own_and_what_is_refused_is_refused_alone(pool: Pool) -> None:
    store, jobs = AgentStepStore(pool), [job() for _ in range(60)]
    planned = [PlannedStep("", "a", {"n": n}, prompt_tokens=2**31 if n == 7 else n) for n in range(60)]
    made = await asyncio.gather(
        *(store.plan(of, "a", 1, plan, goal="g") for of, plan in zip(jobs, planned, strict=True)),
        return_exceptions=True,
    )
    assert isinstance(made[7], PermanentError)
    assert [one.planned for n, one in enumerate(made) if n != 7 and isinstance(one, StoredStep)] == [
        one for n, one in enumerate(planned) if n != 7
    ]
    seen = await asyncio.gather(*(store.observe(of, 1, Observed(str(n))) for n, of in enumerate(jobs) if n != 7))
    assert [one.observed.text for one in seen if one.observed] == [str(n) for n in range(60) if n != 7]
    found = await asyncio.gather(*(store.get(of, 1) for of in jobs))
    assert [n for n, one in enumerate(found) if one is None] == [7]


async def waiting(pool: Pool, of: Job) -> None:
    """A call that waits for approval, as its stage leaves it."""
    await DueStore(pool).add(
        DueEvent(str(uuid4()), of.job_id, of.run, NAME, REQUIRES_ACTION, (), Record("t", b"k", b"v", []),
                 datetime.now(UTC) + timedelta(hours=1))
    )  # fmt: skip


async def test_a_call_is_decided_once_and_then_due_at_once(pool: Pool) -> None:
    store, of, other, due = AgentStepStore(pool), job(), job(), DueStore(pool)
    for one in (of, other):
        await stored(store, one, 1)
        await stored(store, one, 2, None)
        assert await store.decide(one.job_id, "approved", by="alice") is None  # nobody has asked
        assert await store.ask(one, 2) == "requested"
        await waiting(pool, one)
    assert not (await due.lease(10, now=datetime.now(UTC))).records
    said = await asyncio.gather(
        store.decide(of.job_id, "approved", by="alice"), store.decide(of.job_id, "rejected", by="alice")
    )
    assert sorted(said, key=str) == [2, None]
    step = await store.get(of, 2)
    assert step is not None
    assert step.approval == ("approved" if said[0] == 2 else "rejected")
    assert await store.ask(of, 2) == step.approval
    assert len((await due.lease(10, now=datetime.now(UTC) + timedelta(seconds=1))).records) == 1
    assert (await store.get(other, 2)).approval == "requested"  # type: ignore[union-attr]


async def test_a_call_is_claimed_by_one_until_that_lapses_or_it_was_made(pool: Pool) -> None:
    store, of = AgentStepStore(pool), job()
    assert not await store.claim(of, 1, for_s=60)  # there is no such step, or no more
    await stored(store, of, 1, None)
    claims = await asyncio.gather(*(store.claim(of, 1, for_s=60) for _ in range(8)))
    assert sum(claims) == 1
    async with pool.connection() as connection:
        await connection.execute("UPDATE agent_steps SET claimed_until = now() - interval '1 ms'")
    assert await store.claim(of, 1, for_s=0)  # of one who has died
    assert await store.claim(of, 1, for_s=60)
    await store.observe(of, 1, Observed("seen"))
    async with pool.connection() as connection:
        await connection.execute("UPDATE agent_steps SET claimed_until = NULL")
    assert not await store.claim(of, 1, for_s=60)
    await stored(store, of, 2, None)
    assert await store.claim(of, 2, for_s=60)  # each step by itself


async def test_what_was_observed_is_decided_no_more(pool: Pool) -> None:
    store, of = AgentStepStore(pool), job()
    await stored(store, of, 1, None)
    await store.ask(of, 1)
    await store.observe(of, 1, Observed("already"))
    assert await store.decide(of.job_id, "approved", by="alice") is None


async def test_memory_is_of_one_user_and_agent_and_can_be_forgotten(pool: Pool) -> None:
    store, now = AgentStepStore(pool), job()
    mine, theirs = job(user_id="alice"), job(user_id="mallory")
    await stored(store, mine, 1, "first")
    await stored(store, mine, 2, "second", is_untrusted=True)
    await stored(store, mine, 3, None)  # not observed yet
    await stored(store, job(), 1, "another agent's", agent_id="b")
    await stored(store, theirs, 1, "mallory's")
    found = await store.recent(now, "a", limit=10)
    assert [(one.observation, one.is_untrusted, one.goal) for one in found] == [
        ("second", True, "g"), ("first", False, "g"),
    ]  # fmt: skip
    assert not await store.recent(mine, "a", limit=10)  # its own steps are its history
    assert [one.observation for one, _ in await store.memory("mallory", "a", limit=10)] == ["mallory's"]
    assert len(await store.memory("alice", "a", limit=1)) == 1
    assert await store.forget("alice", "a") == 3
    assert not await store.recent(now, "a", limit=10)
    assert await store.forget("alice", "a") == 0
    assert len(await store.memory("mallory", "a", limit=10)) == 1
    assert len(await store.history(mine.job_id)) == 3


async def test_old_steps_are_deleted(pool: Pool) -> None:
    store, of = AgentStepStore(pool), job()
    await stored(store, of, 1)
    assert await store.delete_old(before=datetime.now(UTC) - timedelta(days=1)) == 0
    assert await store.delete_old(before=datetime.now(UTC) + timedelta(days=1)) == 1
    assert await store.get(of, 1) is None
    assert (await store.observe(of, 1, Observed("too late"))).observed == Observed("too late")
    assert await store.ask(of, 1) == "rejected"


async def test_steps_that_are_meant_come_in_their_order_and_only_to_whose_they_are(pool: Pool) -> None:
    store, now = AgentStepStore(pool), job()
    one, other, theirs = job(), job(), job(user_id="mallory")
    for of in (one, other, theirs):
        await stored(store, of, 1, f"{of.user_id} {of.job_id}")
    await stored(store, one.model_copy(update={"run": 2}), 1, "the second run's")
    meant = [(theirs.job_id, 1), (other.job_id, 1), (uuid4(), 1), (one.job_id, 1), (one.job_id, 9)]
    assert [(found.job_id, found.observation) for found in await store.these(now, "a", meant)] == [
        (other.job_id, f"alice {other.job_id}"), (one.job_id, "the second run's"),
    ]  # fmt: skip
    assert not await store.these(now, "b", meant)
    await store.forget("alice", "a")
    assert not await store.these(now, "a", meant)


async def test_vectors_go_with_the_steps_that_they_are_of(pool: Pool) -> None:
    store, kept, gone = AgentStepStore(pool), job(), job()
    await stored(store, kept, 1)
    await store.has_vectors(kept)
    assert not await store.forgotten_with_vectors(limit=9)
    await stored(store, gone, 1, agent_id="b")
    await store.has_vectors(gone)
    await store.forget("alice", "b")
    assert await store.forgotten_with_vectors(limit=9) == [(gone.job_id, "alice", "b")]
    later = datetime.now(UTC) + timedelta(days=1)
    assert await store.delete_old(before=later) == 0  # not before their vectors have gone
    assert len(await store.forgotten_with_vectors(limit=9)) == 2
    for job_id in (kept.job_id, gone.job_id):
        await store.vectors_are_gone(job_id)
    assert not await store.forgotten_with_vectors(limit=9)
    assert await store.delete_old(before=later) == 2
