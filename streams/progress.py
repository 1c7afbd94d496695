"""Tells whoever waits how far a document or a training is, now and then."""

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID

from schemas.events import DocumentProgress, Job, JobProgressed, TrainingProgressed
from schemas.ids import uuid7
from streams.app import StreamApp
from streams.cause import CAUSE
from streams.encode import Encoder

AT_MOST_EVERY_S = 0.5
MAX_JOBS = 10_000


class _ProgressTopic:
    """Where it is told."""

    def __init__(self, app: StreamApp, encoder: Encoder, *, stage: str, clock: Callable[[], float] = monotonic) -> None:
        """`stage`: who tells it."""
        self._app, self._encoder, self._stage, self._clock = app, encoder, stage, clock
        self._told_at: OrderedDict[UUID, float] = OrderedDict()

    async def _tell(self, job: Job, **progress: DocumentProgress | TrainingProgressed) -> None:
        now = self._clock()
        if now - self._told_at.get(job.job_id, -AT_MOST_EVERY_S) < AT_MOST_EVERY_S:
            return
        self._told_at[job.job_id] = now
        self._told_at.move_to_end(job.job_id)
        if len(self._told_at) > MAX_JOBS:
            self._told_at.popitem(last=False)
        event = JobProgressed.model_validate({
            "job_id": job.job_id, "run": job.run, "user_id": job.user_id, "stage": self._stage, "state": "working",
            "at": datetime.now(UTC), **progress,
        })  # fmt: skip
        index = uuid7().int >> 64  # of what is said on the way no two are the same
        await self._app.tell(self._encoder.event(event, cause=CAUSE.get(), stage=self._stage, index=index))


class DocumentProgressTopic(_ProgressTopic):
    """See `DocumentProgressWriter`."""

    async def tell(self, job: Job, progress: DocumentProgress) -> None:
        """See `DocumentProgressWriter.tell`."""
        await self._tell(job, document=progress)


class TrainingProgressTopic(_ProgressTopic):
    """See `TrainingProgressWriter`."""

    async def tell(self, job: Job, progress: TrainingProgressed) -> None:
        """See `TrainingProgressWriter.tell`."""
        await self._tell(job, training=progress)
