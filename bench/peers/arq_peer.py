"""arq: a sorted set in Redis, one asyncio worker with as many jobs at once as there are callers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.constants import result_key_prefix
from arq.jobs import Job

from bench.peers.asking import ask
from bench.peers.redis_results import URL, Keys

SETTINGS = replace(RedisSettings.from_dsn(URL or "redis://127.0.0.1"), max_connections=300)  # callers wait for none


async def answer_job(_: dict[Any, Any], prompt: str) -> str:
    """The task."""
    return await ask(prompt)


class WorkerSettings:
    """For `arq`."""

    functions: ClassVar = [answer_job]
    redis_settings = SETTINGS
    max_jobs = 200
    poll_delay = 0.05


class ArqQueue:
    """See `Queue`."""

    def __init__(self) -> None:
        self._keys = Keys(result_key_prefix + "{}")

    async def start(self) -> None:
        """Connect."""
        self._pool: ArqRedis = await create_pool(SETTINGS)

    async def put(self, job_id: str, prompt: str) -> None:
        """Enqueue."""
        await self._pool.enqueue_job("answer_job", prompt, _job_id=job_id)

    async def ended(self, job_ids: Sequence[str]) -> list[str]:
        """Those with a result."""
        return await self._keys.present(job_ids)

    async def answer(self, job_id: str) -> str | None:
        """The result."""
        found = await Job(job_id, self._pool).result_info()
        return None if found is None else str(found.result)


QUEUE = ArqQueue()
