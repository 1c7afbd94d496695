"""What a webhook says. Source: Standard Webhooks 1.0, "Payload structure"."""

from uuid import UUID

import orjson

from schemas.events import JobFinished
from schemas.ids import webhook_id
from schemas.job_view import outcome_view

MAX_BODY_BYTES = 20_000


def due_webhook(finished: JobFinished) -> tuple[str, UUID, str, str, str]:
    """The row of a webhook that is due: its id, job, user, target and body.

    The body is `{type, timestamp, data}` with the job as polled; one over 20 kB says `truncated` and where the rest is.
    """
    job = finished.job
    view = outcome_view(finished)
    body = _body(finished, view)
    if len(body) > MAX_BODY_BYTES:
        thin = {name: view[name] for name in ("job_id", "kind", "status", "accepted_at", "finished_at")}
        body = _body(finished, {**thin, "truncated": True, "path": f"/jobs/{job.job_id}"})
    return webhook_id(job.job_id, job.run), job.job_id, job.user_id, job.callback_url or "", body.decode()


def _body(finished: JobFinished, data: dict[str, object]) -> bytes:
    kind = "job.completed" if finished.status == "completed" else "job.failed"
    timestamp = finished.finished_at.isoformat().replace("+00:00", "Z")
    return orjson.dumps({"type": kind, "timestamp": timestamp, "data": data})
