"""Stage: job-admitted -> completion-requested-<provider>, and word of it to whoever waits."""

from collections.abc import Callable, Sequence
from datetime import datetime

from processors.cancelled import cancelled
from processors.stage import Emit, StageResult
from schemas.events import CompletionRequested, Job, JobAdmitted, JobError, JobFinished, JobProgressed


def route_job(
    event: JobAdmitted,
    *,
    providers: Callable[[], Sequence[str]],
    allowed: Sequence[str],
    default: str | None,
    default_timeout_s: float,
    is_cancelled: Callable[[Job], bool],
    now: datetime,
) -> StageResult:
    """Send the job to the provider asked for, else the default, else the first that is present.

    Args:
        event: The job.
        providers: Names of those that live workers can reach at the moment.
        allowed: Names that have a topic; a job for one of these waits there where no worker says anything yet.
        default: Its name, if one is set.
        default_timeout_s: Of a request that does not say it.
        is_cancelled: True of a job that is not to go on.
        now: The time.

    Returns:
        `Emit` with `CompletionRequested` and `JobProgressed`, or with a `JobFinished`: `cancelled`, `expired`,
        `no-such-provider`.
    """
    job = event.job
    if is_cancelled(job):
        return cancelled(job, at=now)
    if now >= job.expires_at:
        error = JobError(code="expired", message="the job waited longer than it was good for; send it again")
        return Emit((JobFinished.failed(job, error=error, at=now),))
    alive = providers()
    candidates = [name for name in allowed if name in alive] or list(allowed)
    wanted = event.request.provider or (default if default in candidates else candidates[0] if candidates else None)
    if wanted is None or wanted not in candidates:
        there = ", ".join(candidates) or "none"
        error = JobError(code="no-such-provider", message=f"the provider {wanted} is not present; present are: {there}")
        return Emit((JobFinished.failed(job, error=error, at=now),))
    requested = CompletionRequested(
        job=job, provider=wanted, request=event.request, timeout_s=event.request.timeout or default_timeout_s,
        rate_limit=event.rate_limit,
    )  # fmt: skip
    progressed = JobProgressed(
        job_id=job.job_id, run=job.run, user_id=job.user_id, stage="route_job", state="admitted", at=now,
        rate_limit=event.rate_limit,
    )  # fmt: skip
    return Emit((requested, progressed))
