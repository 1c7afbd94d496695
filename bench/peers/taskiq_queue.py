"""What is the same for taskiq on both of its brokers."""

from collections.abc import Sequence
from typing import Any

from taskiq import AsyncBroker
from taskiq_redis import RedisAsyncResultBackend

from bench.peers.asking import ask
from bench.peers.redis_results import URL, Keys


def results() -> "RedisAsyncResultBackend[Any]":
    """Kept for as long as a run takes."""
    return RedisAsyncResultBackend(URL or "redis://127.0.0.1", result_ex_time=600)


class TaskiqQueue:
    """See `Queue`."""

    def __init__(self, broker: AsyncBroker) -> None:
        self._broker, self._keys = broker, Keys("{}")
        self._task = broker.register_task(ask, task_name="answer_job")

    async def start(self) -> None:
        """Connect."""
        await self._broker.startup()

    async def put(self, job_id: str, prompt: str) -> None:
        """Enqueue."""
        await self._task.kicker().with_task_id(job_id).kiq(prompt)

    async def ended(self, job_ids: Sequence[str]) -> list[str]:
        """Those with a result."""
        return await self._keys.present(job_ids)

    async def answer(self, job_id: str) -> str | None:
        """The result."""
        found = await self._broker.result_backend.get_result(job_id)
        return str(found.return_value)
