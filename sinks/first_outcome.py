"""Of several outcomes of one run of a job, the one that is shown."""

from collections.abc import Sequence
from uuid import UUID

from schemas.envelope import Envelope
from schemas.events import JobFinished

YIELDING = {"rate-limited", "quarantined"}


def winners(outcomes: Sequence[Envelope[JobFinished]]) -> list[Envelope[JobFinished]]:
    """One outcome per job, in order of job_id, so that two replicas never wait for each other.

    That of the highest run; within a run the first, but one that merely says `not now` yields to any other.
    """
    kept: dict[UUID, Envelope[JobFinished]] = {}
    for outcome in outcomes:
        before = kept.get(outcome.payload.job.job_id)
        if before is None or _replaces(outcome.payload, before.payload):
            kept[outcome.payload.job.job_id] = outcome
    return sorted(kept.values(), key=lambda outcome: outcome.payload.job.job_id)


def _replaces(later: JobFinished, earlier: JobFinished) -> bool:
    if later.job.run != earlier.job.run:
        return later.job.run > earlier.job.run
    return _code(earlier) in YIELDING and _code(later) not in YIELDING


def _code(finished: JobFinished) -> str | None:
    return finished.error.code if finished.error else None
