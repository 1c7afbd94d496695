"""Where results lie that a peer keeps in Redis: looked at by their keys, many at once."""

import os
from collections.abc import Sequence

from redis.asyncio import Redis

URL = os.environ.get("REDIS_URL", "")


class Keys:
    """`name`: of a job's result, with `{}` for its id."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._redis: Redis | None = None

    async def present(self, job_ids: Sequence[str]) -> list[str]:
        """Those that have a result."""
        self._redis = self._redis or Redis.from_url(URL)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.exists(self._name.format(job_id))
            found = await pipeline.execute()
        return [job_id for job_id, is_there in zip(job_ids, found, strict=True) if is_there]
