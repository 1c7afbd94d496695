"""FastStream on Kafka: one record, one call, one record with the answer; the front keeps answers in memory."""

import os
from collections.abc import Sequence

from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker
from pydantic import BaseModel

from bench.peers.asking import ask

JOBS, ANSWERS = "bench-faststream-jobs", "bench-faststream-answers"


class Work(BaseModel):
    """A job, or its answer."""

    job_id: str
    text: str


def _broker() -> KafkaBroker:
    return KafkaBroker(os.environ.get("KAFKA_BOOTSTRAP_SERVERS", ""), acks="all", enable_idempotence=True)


broker = _broker()
app = FastStream(broker)


@broker.subscriber(
    JOBS, group_id="workers", auto_offset_reset="earliest", max_workers=200, ack_policy=AckPolicy.ACK_FIRST
)
@broker.publisher(ANSWERS)
async def answer_job(work: Work) -> Work:
    """The task."""
    return Work(job_id=work.job_id, text=await ask(work.text))


class FastStreamQueue:
    """See `Queue`."""

    def __init__(self) -> None:
        self._broker = _broker()
        self._answers: dict[str, str] = {}
        self._broker.subscriber(ANSWERS, auto_offset_reset="latest")(self._take)

    async def _take(self, work: Work) -> None:
        self._answers[work.job_id] = work.text

    async def start(self) -> None:
        """Connect."""
        await self._broker.start()

    async def put(self, job_id: str, prompt: str) -> None:
        """Publish, and wait for the broker to have it."""
        await self._broker.publish(Work(job_id=job_id, text=prompt), JOBS, key=job_id.encode())

    async def ended(self, job_ids: Sequence[str]) -> list[str]:
        """Those with an answer."""
        return [job_id for job_id in job_ids if job_id in self._answers]

    async def answer(self, job_id: str) -> str | None:
        """Told once."""
        return self._answers.pop(job_id, None)


QUEUE = FastStreamQueue()
