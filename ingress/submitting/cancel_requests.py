"""Puts `job-cancel-requested` on its topic, and sees what comes of it at once."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from uuid import UUID

from ingress.follower import Follower
from ingress.publisher import Publisher
from processors.cancelled import CANCELLED
from schemas.envelope import Attributes, Record
from schemas.events import JobCancelRequested


def ended_as(error_code: str | None) -> str:
    """What a cancel says of a job that has ended."""
    return "cancelled" if error_code == CANCELLED else "already-finished"


class CancelRequests:
    """Whether a user may is for the caller to know; the workers ask again."""

    def __init__(self, publisher: Publisher, follower: Follower, *, topic: str, wait_s: float) -> None:
        """`topic`: full name; `wait_s`: how long the outcomes are waited for."""
        self._publisher, self._follower, self._topic, self._wait_s = publisher, follower, topic, wait_s

    async def cancel(self, job_ids: Sequence[UUID], user_id: str) -> list[str]:
        """Ask for all of them and wait a little: `cancelling`, `cancelled` or `already-finished` for each.

        Raises:
            NotAcceptedError, OutcomeUnknownError: Kafka does not answer; it may be asked for again.
        """
        with ExitStack() as stack:
            watches = [stack.enter_context(self._follower.watch(job_id)) for job_id in job_ids]
            asked = await asyncio.gather(*(self.publish(job_id, user_id) for job_id in job_ids), return_exceptions=True)
            for error in asked:
                if error is not None:
                    raise error
            if watches:
                await asyncio.wait({watch.finished for watch in watches}, timeout=self._wait_s)
            outcomes = [watch.finished.result() if watch.finished.done() else None for watch in watches]
        return [
            "cancelling" if outcome is None else ended_as(outcome.error["code"] if outcome.error else None)
            for outcome in outcomes
        ]

    async def publish(self, job_id: UUID, user_id: str) -> None:
        """Return once the brokers have it; raises as `Publisher.publish`."""
        attributes = Attributes(f"{job_id}/{user_id}", "/ingress", "job-cancel-requested")
        value = JobCancelRequested(job_id=job_id, user_id=user_id).model_dump_json().encode()
        await self._publisher.publish(Record(self._topic, str(job_id).encode(), value, attributes.headers()))
