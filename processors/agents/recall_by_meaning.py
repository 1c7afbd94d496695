"""What an agent has observed, found again by what it means: vectors of each step of a run, under a tenant of its own.

A vector only says which step is meant. What the step was is read from where it is stored, so what was forgotten, or was
never this user's and this agent's, is not told of, whatever the vectors hold.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from uuid import UUID, uuid5

from processors.agents.history import digest_of
from processors.agents.ports import Remembered, StepStore
from processors.documents.document_ports import Collection, EmbeddedChunk, VectorRepository
from processors.errors import PermanentError, RetryableError
from processors.ports import EmbeddingProvider
from schemas.events import AgentStep, Chunk, Job, ToolCallRequested

SOURCE = "agent-memory"
ALIKE_STEPS, MAX_TEXT_CHARS, MAX_GOAL_CHARS, TIMEOUT_S = 4, 1_500, 300, 3.0


def tenant(user_id: str, agent_id: str) -> str:
    """Nobody's name: users' have no slash in them."""
    return f"{user_id}/agents/{agent_id}"


class RecallByMeaning:
    """Best effort: a run neither fails nor waits for long because of what it cannot remember."""

    def __init__(self, vectors: VectorRepository, provider: EmbeddingProvider, steps: StepStore) -> None:
        """`provider`: makes the vectors; those of another one before are not found any more."""
        self._vectors, self._provider, self._steps = vectors, provider, steps

    async def keep(self, event: ToolCallRequested, last: AgentStep) -> None:
        """Keep a run that has ended: its newest steps and the last one; the same may be kept again."""
        job, agent_id = event.job, event.request.agent_id
        goal = event.request.goal[:MAX_GOAL_CHARS]
        texts = {one.step: f"{goal}\n{digest_of(one)}"[:MAX_TEXT_CHARS] for one in (*event.state.steps, last)}
        with contextlib.suppress(RetryableError, PermanentError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                made = await self._provider.embed(list(texts.values()), purpose="passage", timeout_s=TIMEOUT_S)
                chunks = [
                    EmbeddedChunk(Chunk(index=step, text="", start=0, end=0, tokens=0), vector)
                    for step, vector in zip(texts, made.vectors, strict=True)
                ]
                await self._steps.has_vectors(job)  # first: what is not known of could not be deleted
                await self._vectors.store(
                    tenant(job.user_id, agent_id), self._collection(len(made.vectors[0])), document_id=job.job_id,
                    version_id=uuid5(job.job_id, f"memory/{job.run}"), source=SOURCE, chunks=chunks,
                )  # fmt: skip

    async def alike(self, job: Job, agent_id: str, goal: str) -> Sequence[Remembered]:
        """Steps of earlier runs of the user's agent that mean something like the goal, best first."""
        with contextlib.suppress(RetryableError, PermanentError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                made = await self._provider.embed([goal[:MAX_TEXT_CHARS]], purpose="query", timeout_s=TIMEOUT_S)
                vector = made.vectors[0]
                found = await self._vectors.search(
                    tenant(job.user_id, agent_id), self._collection(len(vector)), query="", vector=vector,
                    mode="dense", limit=ALIKE_STEPS, hidden=(),
                )  # fmt: skip
                meant: list[tuple[UUID, int]] = [(one.document_id, one.chunk.index) for one in found]
                return await self._steps.these(job, agent_id, meant) if meant else ()
        return ()

    def _collection(self, dimensions: int) -> Collection:
        return Collection(self._provider.name, self._provider.embedding_model, dimensions)
