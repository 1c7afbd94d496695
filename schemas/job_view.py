"""A job as its user sees it: by polling, in a webhook, or in a waiting call's error."""

from datetime import datetime
from typing import Any
from uuid import UUID

from schemas.events import JobFinished


def job_view(
    *,
    job_id: UUID,
    kind: str,
    status: str,
    accepted_at: datetime | None,
    finished_at: datetime | None = None,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
    metadata: dict[str, str] | None = None,
    stage: str | None = None,
    state: str | None = None,
    retry_at: datetime | None = None,
    attempts: list[dict[str, Any]] | None = None,
    document: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    timings: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The polled shape: `{job_id, status, result?, error?: {code, message, retry_after_s?}, ...}`; nothing empty."""
    view: dict[str, Any] = {
        "job_id": str(job_id),
        "kind": kind,
        "status": status,
        "accepted_at": _iso(accepted_at),
        "finished_at": _iso(finished_at),
        "result": result,
        "error": error,
        "metadata": metadata or None,
        "stage": stage,
        "state": state,
        "retry_at": _iso(retry_at),
        "attempts": attempts or None,
        "document": document,
        "training": training,
        "timings": timings or None,
    }
    return {name: value for name, value in view.items() if value is not None}


def outcome_view(finished: JobFinished) -> dict[str, Any]:
    """The same of an outcome, before or without its row."""
    return job_view(
        job_id=finished.job.job_id,
        kind=finished.job.kind,
        status=finished.status,
        accepted_at=finished.job.accepted_at,
        finished_at=finished.finished_at,
        result=finished.result,
        error=finished.error.model_dump(exclude_none=True) if finished.error else None,
        metadata=finished.job.metadata,
        attempts=[attempt.model_dump(exclude_none=True) for attempt in finished.attempts],
        timings=[timing.model_dump(mode="json") for timing in finished.job.timings],
    )


def _iso(at: datetime | None) -> str | None:
    return at.isoformat().replace("+00:00", "Z") if at else None
