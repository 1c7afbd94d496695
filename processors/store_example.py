"""Stage: example-received -> job-finished."""

import json
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID, uuid5

from processors.stage import Emit, StageResult
from schemas.events import ExampleReceived, Job, JobFinished
from schemas.requests import ExampleRequest


@dataclass(frozen=True, slots=True)
class KeptExample:
    """One that is stored; `is_new`: by this job."""

    example_id: UUID
    is_new: bool


class ExampleStore(Protocol):
    """Keeps examples, each content of a user's once."""

    async def add(self, job: Job, example_id: UUID, example: ExampleRequest) -> KeptExample:
        """Keep it; what is kept of this content then. May be called again.

        Raises:
            RetryableError: The store is away.
            PermanentError: The user has as many as one may have.
        """
        ...


async def store_example(event: ExampleReceived, *, examples: ExampleStore, now: datetime) -> StageResult:
    """Keep the example, as the gate let it pass.

    Returns:
        `Emit` with one `JobFinished`, whose result is `{example_id, duplicate, meta}`; of a duplicate the id is that
        of the one that was there.

    Raises:
        RetryableError, PermanentError: As the store raised them.
    """
    kept = await examples.add(event.job, uuid5(event.job.job_id, "example"), event.request)
    result: dict[str, Any] = {
        "example_id": str(kept.example_id), "duplicate": not kept.is_new, "meta": {"job_id": str(event.job.job_id)},
    }  # fmt: skip
    return Emit((JobFinished.completed(event.job, result=result, at=now, rate_limit=event.rate_limit),))


def content_hash(example: ExampleRequest) -> bytes:
    """The same for two examples that say the same."""
    said = [" ".join(text.split()) for text in (example.instruction, example.input, example.output)]
    return sha256(json.dumps(said, ensure_ascii=False).encode()).digest()
