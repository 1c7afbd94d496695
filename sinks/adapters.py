"""Users' trained adapters, in Postgres. Every statement on them lives here.

A row is a user's adapter of a name; its `adapter_id` is that of the newest try at training it, so a try that has lost
the row cannot write to it any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from processors.errors import RetryableError
from processors.learning.adapter_ports import (
    ADAPTER_EXISTS,
    TOO_MANY_ADAPTERS,
    FoundAdapter,
    NotBegunError,
    adapter_exists,
    too_many_adapters,
)
from processors.learning.training_ports import LossPoint, TrainedAdapter
from schemas.events import Job
from schemas.requests import TrainingRequest
from sinks.pool import Pool

SILENT_S = 60.0  # a training that has said nothing for so long has lost its worker
BUSY_AGAIN_S = 30.0
STATUS = f"""CASE WHEN status = 'training' AND beat_at < now() - make_interval(secs => {SILENT_S:.0f})
    THEN 'interrupted' ELSE status END AS status"""
COLUMNS = f"""name, adapter_id, provider, job_id, epochs, lr, batch_size, examples, held_out, losses,
    held_out_loss_before, held_out_loss_after, error, created_at, finished_at, {STATUS}"""
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
OF_A_NAME = """
SELECT adapter_id, attempt, provider, status, job_id, run, beat_at > now() - make_interval(secs => $3) AS lives
FROM adapters WHERE user_id = $1 AND name = $2
"""
BUSY = """
SELECT EXISTS (SELECT FROM adapters WHERE provider = $1 AND status = 'training' AND NOT (user_id = $2 AND name = $3)
    AND beat_at > now() - make_interval(secs => $4))
"""
REPLACE = """
UPDATE adapters SET status = 'replaced' WHERE provider = $1 AND status IN ('ready', 'training')
    AND NOT (user_id = $2 AND name = $3)
"""
TAKE = """
INSERT INTO shared_adapters (provider, user_id, adapter_id) VALUES ($1, $2, $3)
ON CONFLICT (provider) DO UPDATE SET user_id = excluded.user_id, adapter_id = excluded.adapter_id
"""
BEGIN = """
INSERT INTO adapters (user_id, name, adapter_id, attempt, provider, status, job_id, run, epochs, lr, batch_size)
VALUES ($1, $2, $3, $4, $5, 'training', $6, $7, $8, $9, $10)
"""
FORGET = "INSERT INTO forgotten_adapters (adapter_id, provider) VALUES ($1, $2) ON CONFLICT DO NOTHING"
BEAT = """
UPDATE adapters SET beat_at = now(), losses = $2, examples = $3, held_out = $4
WHERE adapter_id = $1 AND status = 'training'
"""
FINISH = f"""
UPDATE adapters SET status = 'ready', finished_at = now(), losses = $2, held_out_loss_before = $3,
    held_out_loss_after = $4, answers = $5
WHERE adapter_id = $1 AND status = 'training' RETURNING {COLUMNS}
"""  # noqa: S608 of constants
FAIL = """
WITH failed AS (
    UPDATE adapters SET status = 'failed', finished_at = now(), error = $2
    WHERE adapter_id = $1 AND status = 'training' RETURNING adapter_id, provider
)
INSERT INTO forgotten_adapters (adapter_id, provider) SELECT adapter_id, provider FROM failed ON CONFLICT DO NOTHING
"""
DELETE = """
WITH deleted AS (
    DELETE FROM adapters WHERE user_id = $1 AND name = $2 RETURNING adapter_id, provider, status, job_id
), forgotten AS (
    INSERT INTO forgotten_adapters (adapter_id, provider) SELECT adapter_id, provider FROM deleted
    ON CONFLICT DO NOTHING
)
SELECT status, job_id FROM deleted
"""


@dataclass(frozen=True, slots=True)
class AdapterRow:
    """One, as it is stored. `status`: training, interrupted, ready, replaced, failed."""

    name: str
    adapter_id: UUID
    provider: str
    job_id: UUID
    epochs: int
    lr: float
    batch_size: int
    examples: int
    held_out: int
    losses: list[dict[str, Any]]
    held_out_loss_before: float | None
    held_out_loss_after: float | None
    error: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None
    status: str

    def summary(self) -> dict[str, Any]:
        """What a job's outcome says of it."""
        return {
            "adapter": self.name, "provider": self.provider, "status": self.status, "examples": self.examples,
            "held_out": self.held_out, "steps": self.losses[-1]["step"] if self.losses else 0,
            "loss_first": self.losses[0]["loss"] if self.losses else None,
            "loss_last": self.losses[-1]["loss"] if self.losses else None,
            "held_out_loss_before": self.held_out_loss_before, "held_out_loss_after": self.held_out_loss_after,
        }  # fmt: skip

    def view(self) -> dict[str, Any]:
        """As its user sees it."""
        return {
            "name": self.name, "provider": self.provider, "status": self.status, "job_id": str(self.job_id),
            "created_at": self.created_at, "finished_at": self.finished_at, "examples": self.examples,
            "held_out": self.held_out,
            "parameters": {"epochs": self.epochs, "lr": self.lr, "batch_size": self.batch_size},
            "losses": self.losses, "held_out_loss_before": self.held_out_loss_before,
            "held_out_loss_after": self.held_out_loss_after, "error": self.error,
        }  # fmt: skip


class AdapterStore:
    """See `AdapterLedger` and `AdapterLookup`; and what the ingress shows. Raises RetryableError without Postgres."""

    def __init__(self, pool: Pool, *, max_per_user: int = 10) -> None:
        """`max_per_user`: as many as a user may have, whatever became of them."""
        self._pool, self.max_per_user = pool, max_per_user

    # --- training ---

    async def begin(
        self, job: Job, request: TrainingRequest, *, provider: str, is_shared: bool
    ) -> UUID | dict[str, Any]:
        """See `AdapterLedger.begin`."""
        who = (job.user_id, request.name)
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(LOCK, f"adapters/{job.user_id}")
            if is_shared:
                await connection.execute(LOCK, f"shared-adapters/{provider}")
            there = await connection.fetchrow(OF_A_NAME, *who, SILENT_S)
            is_ours = there is not None and (there["job_id"], there["run"]) == (job.job_id, job.run)
            if there is not None:
                if is_ours and there["status"] in ("ready", "replaced"):
                    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM adapters WHERE adapter_id = $1",  # noqa: S608 constant
                                                    there["adapter_id"])  # fmt: skip
                    return AdapterRow(**row).summary()
                is_in_training = there["status"] == "training" and there["lives"]
                if there["job_id"] != job.job_id and (there["status"] == "ready" or is_in_training):
                    raise NotBegunError(ADAPTER_EXISTS, adapter_exists(request.name, is_in_training=is_in_training))
            others = await connection.fetchval(
                "SELECT count(*) FROM adapters WHERE user_id = $1 AND name <> $2", *who
            )  # fmt: skip
            if others >= self.max_per_user:
                raise NotBegunError(TOO_MANY_ADAPTERS, too_many_adapters(self.max_per_user))
            attempt = there["attempt"] + 1 if is_ours else 1
            # Of no try that was: what is said to be forgotten of one whose row was deleted is not this one's.
            adapter_id = uuid4()
            if is_shared:
                if await connection.fetchval(BUSY, provider, *who, SILENT_S):
                    told = f"{provider} has one adapter for all, and another one is being trained: this one waits"
                    raise RetryableError("trainer-busy", told, retry_after_s=BUSY_AGAIN_S)
                # Whatever comes of it: from here on nobody knows what the server answers with.
                await connection.execute(REPLACE, provider, *who)
                await connection.execute(TAKE, provider, job.user_id, adapter_id)
            if there is not None:
                await connection.execute(FORGET, there["adapter_id"], there["provider"])
                await connection.execute("DELETE FROM adapters WHERE user_id = $1 AND name = $2", *who)
            await connection.execute(
                BEGIN, *who, adapter_id, attempt, provider, job.job_id, job.run, request.epochs, request.lr,
                request.batch_size,
            )  # fmt: skip
        return adapter_id

    async def beat(self, adapter_id: UUID, losses: Sequence[LossPoint], *, examples: int, held_out: int) -> bool:
        """See `AdapterLedger.beat`."""
        points = [point.model_dump() for point in losses]
        async with self._pool.connection() as connection:
            done: str = await connection.execute(BEAT, adapter_id, points, examples, held_out)
        return done != "UPDATE 0"

    async def finish(self, adapter_id: UUID, trained: TrainedAdapter) -> dict[str, Any] | None:
        """See `AdapterLedger.finish`."""
        losses = [point.model_dump() for point in trained.losses]
        answers = [answer.model_dump() for answer in trained.answers]
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                FINISH, adapter_id, losses, trained.held_out_loss_before, trained.held_out_loss_after, answers
            )
        return AdapterRow(**row).summary() if row is not None else None

    async def fail(self, adapter_id: UUID, code: str, message: str) -> None:
        """See `AdapterLedger.fail`."""
        async with self._pool.connection() as connection:
            await connection.execute(FAIL, adapter_id, {"code": code, "message": message})

    async def is_anyones(self, job: Job, name: str) -> bool:
        """See `AdapterLedger.is_anyones`."""
        async with self._pool.connection() as connection:
            found: bool = await connection.fetchval(
                "SELECT EXISTS (SELECT FROM adapters WHERE user_id = $1 AND name = $2 AND job_id = $3)",
                job.user_id, name, job.job_id,
            )  # fmt: skip
        return found

    async def forgotten(self, providers: Sequence[str], *, limit: int) -> Sequence[tuple[UUID, str]]:
        """What is to be deleted at these providers."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                "SELECT adapter_id, provider FROM forgotten_adapters WHERE provider = ANY($1) ORDER BY forgotten_at "
                "LIMIT $2", list(providers), limit,
            )  # fmt: skip
        return [(row["adapter_id"], row["provider"]) for row in rows]

    async def is_gone(self, adapter_id: UUID) -> None:
        """Nothing is left of it."""
        async with self._pool.connection() as connection:
            await connection.execute("DELETE FROM forgotten_adapters WHERE adapter_id = $1", adapter_id)

    # --- using ---

    async def ready(self, user_id: str) -> Sequence[FoundAdapter]:
        """See `AdapterLookup.ready`."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                "SELECT adapter_id, name, provider FROM adapters WHERE user_id = $1 AND status = 'ready' ORDER BY name",
                user_id,
            )  # fmt: skip
        return [FoundAdapter(**row) for row in rows]

    async def last_trained_by(self, provider: str) -> str | None:
        """See `AdapterLookup.last_trained_by`."""
        async with self._pool.connection() as connection:
            found: str | None = await connection.fetchval(
                "SELECT user_id FROM shared_adapters WHERE provider = $1", provider
            )
        return found

    # --- looking ---

    async def all_of(self, user_id: str) -> Sequence[AdapterRow]:
        """All of the user's, the newest first; they are few."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {COLUMNS} FROM adapters WHERE user_id = $1 ORDER BY created_at DESC, name",  # noqa: S608 constant
                user_id,
            )  # fmt: skip
        return [AdapterRow(**row) for row in rows]

    async def get(self, user_id: str, name: str) -> tuple[AdapterRow, list[dict[str, Any]]] | None:
        """One of the user's, and what it says to the examples held out."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                f"SELECT {COLUMNS}, answers FROM adapters WHERE user_id = $1 AND name = $2",  # noqa: S608 constant
                user_id, name,
            )  # fmt: skip
        if row is None:
            return None
        fields = dict(row)
        answers: list[dict[str, Any]] = fields.pop("answers")
        return AdapterRow(**fields), answers

    async def delete(self, user_id: str, name: str) -> tuple[str, UUID] | None:
        """What its status and its job were; None where there is none. What it is made of goes soon after."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(DELETE, user_id, name)
        return (row["status"], row["job_id"]) if row is not None else None
