"""Stage: job-admitted -> completion-requested-<provider>, and word of it to whoever waits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from processors.cancelled import cancelled
from processors.stage import Emit, StageResult
from schemas.events import CompletionRequested, Job, JobAdmitted, JobError, JobFinished, JobProgressed


@dataclass(frozen=True, slots=True)
class KnownProviders:
    """Names of providers: `alive`, that live workers can reach; `seen`, that any worker could ever reach;
    `configured`, that this deployment has the key or address of."""

    alive: Sequence[str] = ()
    seen: Sequence[str] = ()
    configured: Sequence[str] = ()


def route_job(
    event: JobAdmitted,
    *,
    providers: Callable[[], KnownProviders],
    allowed: Sequence[str],
    default: str | None,
    default_timeout_s: float,
    clock_is_right: Callable[[], bool],
    is_cancelled: Callable[[Job], bool],
    now: datetime,
) -> StageResult:
    """Send the job to the provider asked for, else the default, else the first that is present.

    While no worker lives that could do it, it waits in the topic of one that somebody will come back for: never in
    one that nobody has ever read where there is another.

    Args:
        event: The job.
        providers: What is known of them now.
        allowed: Names that have a topic.
        default: Its name, if one is set.
        default_timeout_s: Of a request that does not say it.
        clock_is_right: False while nothing may be expired, since nobody knows what time it is.
        is_cancelled: True of a job that is not to go on.
        now: The time.

    Returns:
        `Emit` with `CompletionRequested` and `JobProgressed`, or with a `JobFinished`: `cancelled`, `expired`,
        `no-such-provider`.
    """
    job = event.job
    if is_cancelled(job):
        return cancelled(job, at=now)
    if now >= job.expires_at and clock_is_right():
        error = JobError(code="expired", message="the job waited longer than it was good for; send it again")
        return Emit((JobFinished.failed(job, error=error, at=now),))
    known = providers()
    ranks = [[name for name in allowed if name in names] for names in (known.alive, known.seen, known.configured)]
    candidates = next(filter(None, ranks), list(allowed))
    wanted = event.request.provider or (default if default in candidates else candidates[0] if candidates else None)
    if wanted is None or (event.request.provider is not None and not any(wanted in names for names in ranks)):
        there = ", ".join(candidates) if any(ranks) else "none"
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
