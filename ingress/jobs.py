"""Looking at jobs, and at what became of their webhooks."""

import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Response

from ingress.http.problems import Problem, not_found
from ingress.progress import Progress
from ingress.services import TOO_MANY, AskingUser, CostingUser, CurrentUser, Found, Services
from processors.errors import RetryableError
from processors.retries import MAX_BACKOFF_S
from processors.run_tool import REQUIRES_ACTION
from schemas.events import UserUpdated, utc_from_ms
from schemas.ids import JobIds
from schemas.job_view import job_view
from sinks.postgres import MAX_PAGE, InvalidCursorError, JobRow
from sinks.webhook_signing import RotatedTooOftenError

router = APIRouter()
FRESH_GRACE_S = 300
UNKNOWN_AGE_MS = 60_000  # a job that runs has its row within seconds
WAITING_FOR_PROVIDER = "waiting-for-provider"
WAITS_FOR_USER = "requires_action"
# Until a provider has begun with a job after such a word of it, or has no place for it.
ON_ITS_WAY_S = {"admitted": 1.0, "waiting": 2.0, "retrying": MAX_BACKOFF_S + 1}


@router.get("/jobs", tags=["jobs"])
async def jobs(
    user: CurrentUser,
    found: Found,
    status: Literal["pending", "completed", "error"] | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    user_id: Annotated[str | None, Query(max_length=128, description="Whose; for admins, who else get all")] = None,
) -> Response:
    """Own jobs (an admin's view: everybody's, or one user's), newest first; `next` is the cursor of the page after."""
    whose = shown_of(user, user_id, what="jobs")
    try:
        rows, after = await found.jobs.page(user_id=whose, status=status, limit=found.limits.page(limit), cursor=cursor)
    except InvalidCursorError as error:
        raise Problem(400, error.code, error.message) from None
    return _json({"items": [row.view() for row in rows], "next": after})


@router.get("/jobs/{job_id}", tags=["jobs"])
async def job(job_id: UUID, user: CurrentUser, found: Found) -> Response:
    """One job: status, result or error, and where it is while it runs.

    Of one that has spoken, `audio_url` is where its audio is, for whoever has the address, for an hour.
    """
    view = await view_of(job_id, user, found)
    if view["kind"] == "speech" and view["status"] == "completed":
        view["audio_url"] = found.audio_links.path(job_id, now_s=time.time())
    return _json(view)


@router.get("/inference/{job_id}", tags=["chat"])
async def inference(job_id: UUID, user: CurrentUser, found: Found) -> Response:
    """One job, briefly: `result` is the body that a waiting call would have answered."""
    view = await view_of(job_id, user, found)
    return _json({name: view[name] for name in ("job_id", "status", "result", "error") if name in view})


@router.get("/jobs/{job_id}/webhooks", tags=["webhooks"])
async def webhooks(job_id: UUID, user: CurrentUser, found: Found) -> Response:
    """Every attempt to deliver the job's webhook."""
    await view_of(job_id, user, found)
    return _json({"items": await found.webhooks.attempts(job_id)})


@router.post(
    "/jobs/{job_id}/webhooks/redeliver", tags=["webhooks"], status_code=202,
    responses={409: {"description": "The job has no webhook"}, 429: TOO_MANY},
)  # fmt: skip
async def redeliver(job_id: UUID, user: CostingUser, found: Found) -> Response:
    """Send the job's webhook again at once, as it is stored and with its id; an attempt under way counts as that."""
    await view_of(job_id, user, found)
    found.submissions.count(user)
    if not await found.webhooks.send_again(job_id):
        detail = "the job has no webhook: it has no callback_url, or has not ended yet"
        raise Problem(409, "no-webhook", detail)
    return Response(orjson.dumps({"job_id": str(job_id)}), 202, media_type="application/json")


@router.get("/webhook-secret", tags=["webhooks"])
async def webhook_secret(user: AskingUser, found: Found) -> Response:
    """What your webhooks are signed with: give it to any Standard Webhooks library."""
    return _json({"secret": await found.webhook_secrets.current(user.user_id)})


@router.post("/webhook-secret/rotate", tags=["webhooks"])
async def rotate_webhook_secret(user: CurrentUser, found: Found) -> Response:
    """A new secret; for 24 h those that it replaces sign beside it."""
    try:
        return _json({"secret": await found.webhook_secrets.rotate(user.user_id)})
    except RotatedTooOftenError as error:
        raise Problem(429, error.code, error.message, headers={"Retry-After": "3600"}) from None


async def view_of(job_id: UUID, user: UserUpdated, found: Services, *, kinds: Sequence[str] = ()) -> dict[str, Any]:
    """A job as polled; `kinds`: one of these, of which a job that nobody knows yet is the first.

    Raises:
        Problem: It is none of the user's, or of another kind.
    """
    row = await _row(job_id, user, found)
    if row is not None:
        if kinds and row.kind not in kinds:
            raise not_found()
        if row.status != "pending":
            return row.view()
        return row.view(**await _where(job_id, found, asks_provider=row.kind not in ("document", "training")))
    kind = kinds[0] if kinds else "chat"
    if not is_known_without_row(job_id, user, found) or await found.deletion.is_deleted(job_id):
        raise not_found()
    if found.follower.progress(job_id) is not None:
        where = await _where(job_id, found)
        return job_view(job_id=job_id, kind=kind, status="pending", accepted_at=None, **where)
    accepted_at = utc_from_ms(JobIds.minted_at_ms(job_id))
    return job_view(job_id=job_id, kind=kind, status="pending", accepted_at=accepted_at, stage="accepted")


async def visible(job_id: UUID, user: UserUpdated, found: Services) -> float:
    """When a job was accepted, in ms, where the user may see it; somewhat earlier where nobody knows.

    Raises:
        Problem: It is none of theirs.
    """
    view = await view_of(job_id, user, found)
    if found.job_ids.belongs(job_id, user.user_id):
        return JobIds.minted_at_ms(job_id)
    if "accepted_at" not in view:
        return time.time() * 1000 - UNKNOWN_AGE_MS
    return datetime.fromisoformat(view["accepted_at"]).timestamp() * 1000


async def _where(job_id: UUID, found: Services, *, asks_provider: bool = True) -> dict[str, Any]:
    """Where a running job is: as the follower heard it, else from what the job waits for.

    `asks_provider`: what it waits for in silence is a place at its provider, and not a worker.
    """
    progress = found.follower.progress(job_id)
    if progress is not None:
        if progress.code == REQUIRES_ACTION and progress.state == "waiting":
            return {"stage": progress.stage, "state": WAITS_FOR_USER}
        if asks_provider and waits_for_provider(progress, now=datetime.now(UTC)):
            return {"stage": WAITING_FOR_PROVIDER, "state": "waiting", "attempts": progress.attempts}
        return {
            "stage": progress.stage, "state": progress.state, "retry_at": progress.retry_at,
            "attempts": progress.attempts, "document": progress.document, "training": progress.training,
        }  # fmt: skip
    with contextlib.suppress(RetryableError):
        waiting = await found.due.of_job(job_id)
        if waiting is not None and waiting.code == REQUIRES_ACTION:
            return {"stage": waiting.stage, "state": WAITS_FOR_USER}
        if waiting is not None:
            return {
                "stage": waiting.stage, "state": "waiting", "retry_at": waiting.due_at, "attempts": waiting.attempts,
            }  # fmt: skip
    return {"stage": "accepted"}


def waits_for_provider(progress: Progress, *, now: datetime) -> bool:
    """True where nothing was heard of a job since it was sent to its provider's topic: all its places are taken.

    So a job need not say that it waits, which for a burst of them would be as many events more.
    """
    since = progress.retry_at if progress.state == "waiting" and progress.retry_at is not None else progress.at
    told_s = ON_ITS_WAY_S.get(progress.state)
    return told_s is not None and (now - since).total_seconds() > told_s


async def _row(job_id: UUID, user: UserUpdated, found: Services) -> JobRow | None:
    try:
        return await found.jobs.get(job_id, of=seen_by(user))
    except RetryableError as error:
        detail = "jobs that are stored cannot be looked at now; jobs are taken and run all the same"
        raise Problem(503, error.code, detail, headers={"Retry-After": "2"}) from None


def seen_by(user: UserUpdated) -> str | None:
    """Whose things a user sees: their own; None: everybody's."""
    return None if user.role == "admin" else user.user_id


def shown_of(user: UserUpdated, wanted: str | None, *, what: str) -> str | None:
    """Whose things a list has; None: everybody's.

    Raises:
        Problem: Somebody else's are wanted, by one who is no admin.
    """
    if user.role == "admin":
        return wanted
    if wanted in (None, user.user_id):
        return user.user_id
    raise Problem(403, "not-allowed", f"only admins see other users' {what}: leave `user_id` out")


def is_known_without_row(job_id: UUID, user: UserUpdated, found: Services) -> bool:
    """True for one that the user may see by what this replica knows without Postgres; it may have been deleted."""
    progress = found.follower.progress(job_id)
    if progress is not None and (progress.user_id == user.user_id or user.role == "admin"):
        return True
    return is_fresh(job_id, user, found.job_ids, found.expires_after_s)


def is_fresh(job_id: UUID, user: UserUpdated, job_ids: JobIds, expires_after_s: int) -> bool:
    """True for one of the user's own that no row tells of yet."""
    age_s = time.time() - JobIds.minted_at_ms(job_id) / 1000
    return job_ids.belongs(job_id, user.user_id) and -60 < age_s < expires_after_s + FRESH_GRACE_S


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body), 200, media_type="application/json")
