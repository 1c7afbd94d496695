"""What a webhook says. Source: Standard Webhooks 1.0, "Payload structure"."""

from uuid import UUID

import orjson

from schemas.audio_links import WEBHOOK_LINK_S, AudioLinks
from schemas.events import JobFinished
from schemas.ids import webhook_id
from schemas.job_view import outcome_view

MAX_BODY_BYTES = 20_000


def due_webhook(
    finished: JobFinished, *, audio_links: AudioLinks | None = None
) -> tuple[str, UUID, str, str, str]:  # fmt: skip
    """The row of a webhook that is due: its id, job, user, target and body.

    The body is `{type, timestamp, data}` with the job as polled; one over 20 kB says `truncated` and where the rest is.
    `audio_links`: that of a job which has spoken has its `audio_url`, too, which is good for a day from the job's end.
    """
    job = finished.job
    view = outcome_view(finished)
    if audio_links is not None and job.kind == "speech" and finished.status == "completed":
        ended_s = finished.finished_at.timestamp()
        view["audio_url"] = audio_links.path(job.job_id, now_s=ended_s, good_for_s=WEBHOOK_LINK_S)
    body = _body(finished, view)
    if len(body) > MAX_BODY_BYTES:
        thin = {name: view[name] for name in ("job_id", "kind", "status", "accepted_at", "finished_at")}
        body = _body(finished, {**thin, "truncated": True, "path": f"/jobs/{job.job_id}"})
    return webhook_id(job.job_id, job.run), job.job_id, job.user_id, job.callback_url or "", body.decode()


def _body(finished: JobFinished, data: dict[str, object]) -> bytes:
    kind = "job.completed" if finished.status == "completed" else "job.failed"
    timestamp = finished.finished_at.isoformat().replace("+00:00", "Z")
    return orjson.dumps({"type": kind, "timestamp": timestamp, "data": data})
