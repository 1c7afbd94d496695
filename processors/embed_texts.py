"""Stage: embedding-requested -> job-finished."""

import struct
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from processors.ports import EmbeddingProvider
from processors.stage import Emit, StageResult
from schemas.events import EmbeddingRequested, JobFinished


async def embed_texts(event: EmbeddingRequested, *, provider: EmbeddingProvider, now: datetime) -> StageResult:
    """Ask the provider for a vector of each of the job's texts.

    Args:
        event: The texts.
        provider: The one that the event names.
        now: The time of the call.

    Returns:
        `Emit` with one `JobFinished`, whose result is `{model, dimensions, embeddings, usage, meta}`; each embedding is
        base64 of its numbers as little-endian float32: written out they would not fit into a record.

    Raises:
        RetryableError, PermanentError: As the provider raised them.
    """
    found = await provider.embed(event.request.texts, purpose="passage", timeout_s=event.timeout_s)
    usage = {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens}
    result: dict[str, Any] = {
        "model": found.model,
        "dimensions": len(found.vectors[0]),
        "embeddings": [_packed(vector) for vector in found.vectors],
        "usage": usage if found.prompt_tokens is not None else None,
        "meta": {"provider": event.provider, "job_id": str(event.job.job_id)},
    }
    return Emit((JobFinished.completed(event.job, result=result, at=now, rate_limit=event.rate_limit),))


def _packed(vector: Sequence[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
