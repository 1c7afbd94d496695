"""Celery on Redis: prefork, two processes a core, since each waits for its call."""

import asyncio
from collections.abc import Sequence

from celery import Celery

from bench.peers.asking import ask_blocking
from bench.peers.redis_results import URL, Keys

app = Celery("peer", broker=URL, backend=URL)
app.conf.update(result_expires=600, worker_prefetch_multiplier=16, task_track_started=False)


@app.task(name="answer_job")
def answer_job(prompt: str) -> str:
    """The task."""
    return ask_blocking(prompt)


class CeleryQueue:
    """See `Queue`. Celery's client blocks, so it is called in threads."""

    def __init__(self) -> None:
        self._keys = Keys("celery-task-meta-{}")

    async def start(self) -> None:
        """Nothing: it connects by itself."""

    async def put(self, job_id: str, prompt: str) -> None:
        """Enqueue."""
        await asyncio.to_thread(answer_job.apply_async, args=[prompt], task_id=job_id)

    async def ended(self, job_ids: Sequence[str]) -> list[str]:
        """Those with a result."""
        return await self._keys.present(job_ids)

    async def answer(self, job_id: str) -> str | None:
        """The result."""
        found = await asyncio.to_thread(app.backend.get_task_meta, job_id)  # `get` of a result is not for threads
        return str(found["result"])


QUEUE = CeleryQueue()
