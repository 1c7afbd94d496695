"""Which jobs a worker may end from their rows: those whose outcomes it would store itself, and nobody else."""

import asyncio

from schemas.events import Job
from streams.app import StreamApp

LAG_TIMEOUT_S = 4.0
MAX_LAG = 100  # outcomes that wait to be stored; above it a row says little


class OwnOutcomes:
    """So several workers share the jobs. An outcome that waits in the topic is not overtaken: the end comes after it
    in the same partition, where the first one stays.
    """

    def __init__(self, app: StreamApp, finished_topic: str) -> None:
        """`finished_topic`: full name of the topic that `app` stores outcomes from."""
        self._app, self._topic = app, finished_topic

    async def of(self, jobs: list[Job]) -> list[Job]:
        """Those of them that are ours, and stored up to their end, or nearly."""
        if not jobs:
            return []
        partitions = await self.partitions()
        return [job for job in jobs if self._partition_of(job) in partitions]

    async def partitions(self) -> set[int]:
        """Of the outcomes, those that are ours and stored up to their end, or nearly."""
        consumer = self._app.consumer
        owned = [tp for tp in consumer.assignment() if tp.topic == self._topic]
        if not owned:
            return set()
        async with asyncio.timeout(LAG_TIMEOUT_S):
            ends = await consumer.highwaters(*owned)
        return {tp.partition for tp, end in ends.items() if (end or 0) - consumer.finished_up_to(tp) <= MAX_LAG}

    def _partition_of(self, job: Job) -> int | None:
        partition: int | None = self._app.consumer.key_partition(self._topic, str(job.job_id).encode())
        return partition
