"""How a job ends that is not to go on, at whichever stage it is."""

from datetime import datetime

from processors.stage import Emit
from schemas.events import Job, JobError, JobFinished

CANCELLED, USER_DISABLED = "cancelled", "user-disabled"
MESSAGES = {
    CANCELLED: "the job was cancelled before it had its answer",
    USER_DISABLED: "the job's user was disabled or deleted before it had its answer",
}


def cancelled(job: Job, *, at: datetime, code: str = CANCELLED) -> Emit:
    """Its end: an outcome like any other, with a row and a webhook."""
    return Emit((ended(job, at=at, code=code),))


def ended(job: Job, *, at: datetime, code: str) -> JobFinished:
    """The outcome alone."""
    return JobFinished.failed(job, error=JobError(code=code, message=MESSAGES[code]), at=at)
