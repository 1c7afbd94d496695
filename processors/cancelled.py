"""How a cancelled job ends, at whichever stage it is."""

from datetime import datetime

from processors.stage import Emit
from schemas.events import Job, JobError, JobFinished

CANCELLED = "cancelled"


def cancelled(job: Job, *, at: datetime) -> Emit:
    """Its end: an outcome like any other, with a row and a webhook."""
    error = JobError(code=CANCELLED, message="the job was cancelled before it had its answer")
    return Emit((JobFinished.failed(job, error=error, at=at),))
