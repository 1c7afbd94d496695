"""What an agent has observed, found again by what it means."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from processors.agents.memory import recall
from processors.agents.ports import Remembered
from processors.agents.recall_by_meaning import RecallByMeaning, tenant
from processors.errors import PermanentError, RetryableError
from schemas.events import AgentStep, Job, ToolCallRequested
from tests.agents_scene import FakeCalls, MemorySteps, Scene, ScriptedModel, call, finish, requested
from tests.factories import job
from tests.fakes import FakeEmbeddings, MemoryVectors

ABOUT_BEES, ABOUT_TAX = "How do bees dance?", "When is the tax due?"


class ByTopic(FakeEmbeddings):
    """Texts of bees mean one thing, all others another."""

    def __init__(self) -> None:
        super().__init__({})

    async def embed(self, texts: Sequence[str], **more: Any) -> Any:
        self._vectors = {text: (1.0, 0.0, 0.0) if "bees" in text else (0.0, 1.0, 0.0) for text in texts}
        return await super().embed(texts, **more)


class Mind:
    """Vectors, and the steps that they are of."""

    def __init__(self) -> None:
        self.vectors, self.provider, self.steps = MemoryVectors(), ByTopic(), MemorySteps()
        self.recall = RecallByMeaning(self.vectors, self.provider, self.steps)

    async def lived(self, goal: str, *, user: str = "alice", agent_id: str = "a", known: bool = True) -> Job:
        """A run that has ended."""
        scene = Scene(ScriptedModel(call("summary", text=goal), finish(f"about {goal}")))
        scene.steps = self.steps
        kept: list[ToolCallRequested] = []

        async def keep(event: ToolCallRequested, step: AgentStep) -> None:
            kept.append(event)
            await self.recall.keep(event, step)

        event: Any = requested(goal, agent_id=agent_id, job=job(kind="agent", user_id=user))
        of: Job = event.job
        for _ in range(4):
            if isinstance(event, ToolCallRequested):
                event = (await scene.run(event, keep=keep)).events[0]  # type: ignore[union-attr]
            else:
                event = await scene.one(event)
        assert [one.step for one in kept] == [2]  # once, at its end
        if known:
            found = Remembered(of.job_id, 2, goal, "finish", {}, f"about {goal}", False)
            self.steps.remembered = [*self.steps.remembered, found]
        return of


async def goals_of(mind: Mind, goal: str, *, user: str = "alice", agent_id: str = "a") -> list[str]:
    return [one.goal for one in await mind.recall.alike(job(user_id=user), agent_id, goal)]


async def test_a_run_is_kept_at_its_end_and_found_by_what_it_meant() -> None:
    mind = Mind()
    bees, tax = await mind.lived(ABOUT_BEES), await mind.lived(ABOUT_TAX)
    assert {(key[0], key[3]) for key in mind.vectors.stored} == {("alice/agents/a", 1), ("alice/agents/a", 2)}
    assert len(mind.vectors.stored) == 4
    assert mind.steps.with_vectors == {bees.job_id, tax.job_id}
    assert (await goals_of(mind, "dancing bees"))[0] == ABOUT_BEES
    assert (await goals_of(mind, "taxes"))[0] == ABOUT_TAX


async def test_nobody_else_finds_it_neither_another_user_nor_another_agent() -> None:
    mind = Mind()
    await mind.lived(ABOUT_BEES)
    assert await goals_of(mind, "bees", user="mallory") == []
    assert await goals_of(mind, "bees", agent_id="b") == []
    assert tenant("alice", "a") not in ("alice", "a")


async def test_what_was_forgotten_is_not_told_of_though_its_vectors_are_there() -> None:
    mind = Mind()
    await mind.lived(ABOUT_BEES, known=False)
    assert mind.vectors.stored
    assert await goals_of(mind, "bees") == []


async def test_a_run_begins_with_what_is_like_its_goal_beside_the_newest() -> None:
    mind = Mind()
    await mind.lived(ABOUT_BEES)
    newest = [Remembered(UUID(int=n), 1, f"goal {n}", "finish", {}, "x" * 150, False) for n in range(8)]
    alike = mind.steps.remembered
    mind.steps.remembered = [*newest, *alike]
    told = await recall(requested("bees?", agent_id="a"), steps=mind.steps, by_meaning=mind.recall)
    assert ABOUT_BEES in told.state.memory
    assert ABOUT_BEES not in (await recall(requested("bees?", agent_id="a"), steps=mind.steps)).state.memory


async def test_a_run_neither_fails_nor_ends_otherwise_where_nothing_can_be_remembered() -> None:
    for error in (RetryableError("provider-unreachable", "away"), PermanentError("provider-http-400", "no")):
        mind = Mind()
        mind.provider.error = error
        await mind.lived(ABOUT_BEES)
        assert not mind.vectors.stored
        assert await goals_of(mind, "bees") == []


async def test_what_is_kept_twice_is_there_once() -> None:
    mind, calls = Mind(), FakeCalls()
    scene = Scene(ScriptedModel(finish("about bees")), calls=calls)
    scene.steps = mind.steps
    wanted = await scene.one(requested(ABOUT_BEES))
    for _ in range(2):
        await scene.run(wanted, keep=mind.recall.keep)
    assert len(mind.vectors.stored) == 1
