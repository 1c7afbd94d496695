"""Stage: job-admitted -> completion-requested-<provider>, and word of it to whoever waits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from processors.cancelled import cancelled
from processors.stage import Emit, StageResult
from schemas.events import CompletionRequested, Job, JobAdmitted, JobError, JobFinished, JobProgressed

NO_SUCH_PROVIDER, NOT_ALLOWED = "no-such-provider", "not-allowed"
ONLY_ADMINS_SIMULATE = "only admins rehearse failures: leave generation_config.simulate_failure out"


def not_present(absent: Sequence[str], present: Sequence[str]) -> str:
    """That these providers are not there, and who is."""
    what = "provider" if len(absent) == 1 else "providers"
    are = "is" if len(absent) == 1 else "are"
    there = ", ".join(present) or "none"
    if not absent:
        return f"no provider is present; present are: {there}"
    return f"the {what} {', '.join(absent)} {are} not present; present are: {there}"


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
    """Send the job to the provider asked for (of several the first that lives), else the default, else the first there.

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
        `no-such-provider`, `not-allowed`.
    """
    job = event.job
    if is_cancelled(job):
        return cancelled(job, at=now)
    if now >= job.expires_at and clock_is_right():
        error = JobError(code="expired", message="the job waited longer than it was good for; send it again")
        return Emit((JobFinished.failed(job, error=error, at=now),))
    if event.request.generation_config.simulate_failure is not None and job.role != "admin":
        error = JobError(code=NOT_ALLOWED, message=ONLY_ADMINS_SIMULATE)
        return Emit((JobFinished.failed(job, error=error, at=now),))
    known = providers()
    ranks = [[name for name in allowed if name in names] for names in (known.alive, known.seen, known.configured)]
    candidates = next(filter(None, ranks), list(allowed))
    asked_for = event.request.providers
    absent = [name for name in asked_for if not any(name in names for names in ranks)]
    wanted: str | None = default if default in candidates else candidates[0] if candidates else None
    if asked_for:
        wanted = next((name for name in asked_for if name in ranks[0]), asked_for[0])
    if wanted is None or absent:
        error = JobError(code=NO_SUCH_PROVIDER, message=not_present(absent, candidates if any(ranks) else ()))
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
