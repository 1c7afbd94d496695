"""Agents' steps in Postgres: written once, shown to whoever follows a run, remembered. All statements on them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal
from uuid import UUID

import orjson

from processors.agents.ports import Approval, Observed, PlannedStep, Remembered, StoredStep
from processors.loops import repeat
from processors.run_tool import NAME as RUN_TOOL
from processors.run_tool import REQUIRES_ACTION
from schemas.events import AgentStep, Job
from sinks.pool import Pool
from sinks.together import Together

MAX_MEMORY = 200
SWEEP_EVERY_S, SWEPT_AT_ONCE = 3600.0, 5_000

COLUMNS = """thought, action, action_input, model, prompt_tokens, completion_tokens, calls, observation, risk,
             is_untrusted, approval"""

KEY = "job_id, run, step"
FIELDS = f"""{KEY}, user_id, agent_id, goal, thought, action, action_input, model, prompt_tokens, completion_tokens,
             calls, is_untrusted"""
# Each of these three of many steps at once, none of them twice.
GET = f"""
SELECT {KEY}, {COLUMNS} FROM agent_steps JOIN unnest($1::uuid[], $2::int[], $3::int[]) AS k ({KEY}) USING ({KEY})
"""  # noqa: S608 constant

# What is there already stays, and is what is returned: an update of nothing, since `DO NOTHING` returns nothing.
PLAN = f"""
INSERT INTO agent_steps AS s ({FIELDS})
SELECT {FIELDS.replace("action_input", "action_input::jsonb")}
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::int[], $12::int[], $13::int[], $14::bool[]) AS n ({FIELDS})
ON CONFLICT ({KEY}) DO UPDATE SET step = s.step
RETURNING {KEY}, {COLUMNS}
"""  # noqa: S608 constant

OBSERVE = f"""
UPDATE agent_steps AS s SET observed_at = coalesce(observed_at, now()),
    risk = CASE WHEN observation IS NULL THEN said_risk ELSE risk END,
    is_untrusted = CASE WHEN observation IS NULL THEN says_untrusted ELSE is_untrusted END,
    observation = coalesce(observation, said)
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::float8[], $6::bool[])
     AS n (job_id, run, step, said, said_risk, says_untrusted)
WHERE s.job_id = n.job_id AND s.run = n.run AND s.step = n.step
RETURNING s.job_id, s.run, s.step, {COLUMNS}
"""  # noqa: S608 constant

ASK = """
UPDATE agent_steps SET approval = coalesce(approval, 'requested')
WHERE job_id = $1 AND run = $2 AND step = $3 RETURNING approval
"""

CLAIM = """
UPDATE agent_steps SET claimed_until = now() + $4
WHERE job_id = $1 AND run = $2 AND step = $3 AND observation IS NULL
    AND (claimed_until IS NULL OR claimed_until <= now()) RETURNING true
"""

# Of each step that of the newest run: a redrive goes on where the job had failed.
HISTORY = """
SELECT DISTINCT ON (step) step, thought, action, action_input, observation, approval
FROM agent_steps WHERE job_id = $1 AND step > 0 ORDER BY step, run DESC
"""

WHOLE = """
SELECT DISTINCT ON (step) step, thought, action, action_input, observation, risk, is_untrusted
FROM agent_steps WHERE job_id = $1 AND run <= $2 AND step = ANY($3::int[]) AND observation IS NOT NULL
ORDER BY step, run DESC
"""

RECENT = """
SELECT job_id, step, goal, action, action_input, observation, is_untrusted, observed_at FROM agent_steps
WHERE user_id = $1 AND agent_id = $2 AND job_id <> $3 AND NOT is_forgotten AND observation IS NOT NULL AND step > 0
ORDER BY observed_at DESC LIMIT $4
"""

THESE = """
SELECT DISTINCT ON (r.place) s.job_id, s.step, goal, action, action_input, observation, is_untrusted
FROM unnest($4::uuid[], $5::int[]) WITH ORDINALITY AS r (job_id, step, place)
     JOIN agent_steps AS s ON s.job_id = r.job_id AND s.step = r.step
WHERE user_id = $1 AND agent_id = $2 AND s.job_id <> $3 AND NOT is_forgotten AND observation IS NOT NULL
ORDER BY r.place, s.run DESC
"""

# The decision and what lets the call go on, at once: whoever dies before has decided nothing.
DECIDE = """
WITH decided AS (
    UPDATE agent_steps SET approval = $2, decided_by = $3, decided_at = now()
    WHERE job_id = $1 AND approval = 'requested' AND observation IS NULL RETURNING step
), due AS (
    UPDATE due_events SET due_at = now()
    WHERE job_id = $1 AND stage = $4 AND code = $5 AND EXISTS (SELECT FROM decided)
)
SELECT max(step) FROM decided
"""


@dataclass(frozen=True, slots=True)
class HistoryStep:
    """A step as it is shown. `observation`: None while its tool has not answered."""

    step: int
    thought: str
    action: str
    action_input: dict[str, Any]
    observation: str | None
    approval: Approval | None


class AgentStepStore:
    """See `StepStore`; and what the ingress shows and decides. Every method raises RetryableError without Postgres."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._get, self._plan, self._observe = (Together(partial(self._told, it)) for it in (GET, PLAN, OBSERVE))

    # --- for the stages ---

    async def get(self, job: Job, step: int) -> StoredStep | None:
        """See `StepStore.get`."""
        return await self._get.ask((job.job_id, job.run, step), ())

    async def plan(self, job: Job, agent_id: str, step: int, planned: PlannedStep, *, goal: str) -> StoredStep:
        """See `StepStore.plan`."""
        given = orjson.dumps(planned.action_input).decode()  # as text: the driver would take a list for a dimension
        what = (
            job.user_id, agent_id, goal, planned.thought, planned.action, given, planned.model, planned.prompt_tokens,
            planned.completion_tokens, planned.calls, planned.is_tainted,
        )  # fmt: skip
        stored = await self._plan.ask((job.job_id, job.run, step), what)
        return stored or StoredStep(planned)

    async def observe(self, job: Job, step: int, observed: Observed) -> StoredStep:
        """See `StepStore.observe`."""
        of = (observed.text, observed.risk, observed.is_untrusted)
        stored = await self._observe.ask((job.job_id, job.run, step), of)
        # Where there is none, it was deleted with its job meanwhile.
        return stored or StoredStep(PlannedStep("", ""), observed)

    async def _told(
        self, statement: str, asked: Sequence[tuple[tuple[UUID, int, int], tuple[Any, ...]]]
    ) -> dict[tuple[UUID, int, int], StoredStep]:
        """Steps by their keys; the statement takes a list for each part of these, and of what is said of them."""
        columns = zip(*((*key, *what) for key, what in asked), strict=True)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(statement, *map(list, columns))
        return {(row["job_id"], row["run"], row["step"]): _stored(row) for row in rows}

    async def ask(self, job: Job, step: int) -> Approval:
        """See `StepStore.ask`."""
        async with self._pool.connection() as connection:
            said: Approval | None = await connection.fetchval(ASK, job.job_id, job.run, step)
        return said or "rejected"  # as above: nobody is left who could approve it

    async def claim(self, job: Job, step: int, *, for_s: float) -> bool:
        """See `StepStore.claim`; by Postgres's clock."""
        async with self._pool.connection() as connection:
            claimed = await connection.fetchval(CLAIM, job.job_id, job.run, step, timedelta(seconds=for_s))
        return claimed is not None

    async def whole(self, job: Job, numbers: Sequence[int]) -> Sequence[AgentStep]:
        """See `StepStore.whole`."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(WHOLE, job.job_id, job.run, list(numbers))
        return [
            AgentStep(**row | {"risk": row["risk"] or 0.0, "is_untrusted": bool(row["is_untrusted"])})
            for row in map(dict, rows)
        ]

    async def recent(self, job: Job, agent_id: str, *, limit: int) -> Sequence[Remembered]:
        """See `StepStore.recent`."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(RECENT, job.user_id, agent_id, job.job_id, limit)
        return [_remembered(row) for row in rows]

    async def these(self, job: Job, agent_id: str, meant: Sequence[tuple[UUID, int]]) -> Sequence[Remembered]:
        """See `StepStore.these`."""
        job_ids, steps = [job_id for job_id, _ in meant], [step for _, step in meant]
        async with self._pool.connection() as connection:
            rows = await connection.fetch(THESE, job.user_id, agent_id, job.job_id, job_ids, steps)
        return [_remembered(row) for row in rows]

    async def has_vectors(self, job: Job) -> None:
        """See `StepStore.has_vectors`."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE agent_steps SET has_vectors = true WHERE job_id = $1 AND run = $2", job.job_id, job.run
            )

    # --- for the ingress ---

    async def history(self, job_id: UUID) -> list[HistoryStep]:
        """All steps of a job so far, in order."""
        async with self._pool.connection() as connection:
            return [HistoryStep(**row) for row in await connection.fetch(HISTORY, job_id)]

    async def decide(self, job_id: UUID, said: Literal["approved", "rejected"], *, by: str) -> int | None:
        """Approve or reject the call that waits; the number of its step, None where none does. It then goes on."""
        async with self._pool.connection() as connection:
            step: int | None = await connection.fetchval(DECIDE, job_id, said, by, RUN_TOOL, REQUIRES_ACTION)
        return step

    async def memory(self, user_id: str, agent_id: str, *, limit: int) -> list[tuple[Remembered, datetime]]:
        """What a user's agent remembers, newest first."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(RECENT, user_id, agent_id, UUID(int=0), limit)
        return [(_remembered(row), row["observed_at"]) for row in rows]

    async def forget(self, user_id: str, agent_id: str) -> int:
        """Let no run be told of what was until now; how many steps that were. Jobs keep their history."""
        async with self._pool.connection() as connection:
            forgotten: int = await connection.fetchval(
                """WITH forgotten AS (UPDATE agent_steps SET is_forgotten = true
                       WHERE user_id = $1 AND agent_id = $2 AND NOT is_forgotten RETURNING 1)
                   SELECT count(*) FROM forgotten""",
                user_id, agent_id,
            )  # fmt: skip
        return forgotten

    # --- what goes ---

    async def delete_old(self, *, before: datetime) -> int:
        """Delete steps that were planned before then, at most 5,000 of them; how many that were.

        Those with vectors are forgotten at first, and go once their vectors have gone.
        """
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE agent_steps SET is_forgotten = true WHERE planned_at < $1 AND has_vectors AND NOT is_forgotten",
                before,
            )
            deleted: int = await connection.fetchval(
                """WITH deleted AS (DELETE FROM agent_steps WHERE (job_id, run, step) IN (
                       SELECT job_id, run, step FROM agent_steps WHERE planned_at < $1 AND NOT has_vectors LIMIT $2)
                       RETURNING 1)
                   SELECT count(*) FROM deleted""",
                before, SWEPT_AT_ONCE,
            )  # fmt: skip
        return deleted

    async def forgotten_with_vectors(self, *, limit: int) -> list[tuple[UUID, str, str]]:
        """Jobs with steps that were forgotten and whose vectors are there yet, each with its user and agent."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                """SELECT DISTINCT job_id, user_id, agent_id FROM agent_steps
                   WHERE has_vectors AND is_forgotten LIMIT $1""",
                limit,
            )  # fmt: skip
        return [(row["job_id"], row["user_id"], row["agent_id"]) for row in rows]

    async def vectors_are_gone(self, job_id: UUID) -> None:
        """Those of a job's steps were deleted."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE agent_steps SET has_vectors = false WHERE job_id = $1 AND is_forgotten", job_id
            )


async def sweep(store: AgentStepStore, *, kept_days: int) -> None:
    """Delete what is older, now and every hour, until cancelled."""

    async def delete() -> None:
        while await store.delete_old(before=datetime.now(UTC) - timedelta(days=kept_days)) == SWEPT_AT_ONCE:
            pass

    await repeat(delete, "sweeping steps of agents", every_s=SWEEP_EVERY_S, level=logging.INFO)


def _stored(row: Any) -> StoredStep:
    planned = PlannedStep(
        thought=row["thought"], action=row["action"], action_input=row["action_input"], model=row["model"],
        prompt_tokens=row["prompt_tokens"], completion_tokens=row["completion_tokens"], calls=row["calls"],
        is_tainted=bool(row["is_untrusted"]),
    )  # fmt: skip
    observed = None
    if row["observation"] is not None:
        observed = Observed(row["observation"], row["risk"] or 0.0, bool(row["is_untrusted"]))
    return StoredStep(planned, observed, row["approval"])


def _remembered(row: Any) -> Remembered:
    return Remembered(
        job_id=row["job_id"], step=row["step"], goal=row["goal"], action=row["action"],
        action_input=row["action_input"], observation=row["observation"], is_untrusted=bool(row["is_untrusted"]),
    )  # fmt: skip
