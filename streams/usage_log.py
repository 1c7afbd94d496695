"""Follows what is admitted and what has ended, for limits that are counted over all gates: in no group, from its end.

Only once somebody has such a limit. What was under way before is asked of Postgres, once; where that does not answer,
it is not counted.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from aiokafka.structs import ConsumerRecord

from processors.errors import RetryableError
from processors.limits.usage import Usage
from schemas.events import ms_from_utc
from transport.clients import KafkaAccess
from transport.following import Following

logger = logging.getLogger(__name__)

# As `Job` is written: in a job's first fields. What else an event holds is not looked into: it may be long.
_ADMITTED = re.compile(rb'^\{"job":\{"job_id":"([0-9a-f-]{36})".{0,4096}?"expires_at":"([^"\\]{19,40})"', re.DOTALL)
LONGEST = timedelta(days=1)

Pending = Callable[[], Awaitable[Sequence[tuple[UUID, str, datetime]]]]


class UsageLog:
    """Keeps a `Usage` supplied."""

    def __init__(
        self, access: KafkaAccess, usage: Usage, *, admitted: str, finished: str, is_wanted: Callable[[], bool],
        counts_tokens: Callable[[], bool], pending: Pending | None,
    ) -> None:  # fmt: skip
        """What is followed.

        Args:
            access: The cluster.
            usage: What is kept.
            admitted: Full name of the topic.
            finished: Likewise.
            is_wanted: True once somebody has a limit that this is for.
            counts_tokens: True once somebody's tokens are counted.
            pending: Jobs that are under way now, with their users and the end of their time.
        """
        self._usage, self._admitted, self._finished = usage, admitted, finished
        self._is_wanted, self._counts_tokens, self._pending = is_wanted, counts_tokens, pending
        self._following = Following(access, (admitted, finished), self._take, what="what jobs use")
        self._has_begun = False

    async def prepare(self) -> None:
        """Begin, if it is wanted; called before each batch."""
        if self._has_begun or not self._is_wanted():
            return
        self._has_begun = True
        self._following.start()
        if self._pending is None:
            return
        try:
            found = await self._pending()
        except RetryableError as error:
            logger.warning("what is under way already is not counted: %s", error.message)
            return
        self._usage.recall(found, now_ms=ms_from_utc(datetime.now(UTC)))

    async def stop(self) -> None:
        """May be called twice, and without `prepare`."""
        await self._following.stop()

    def _take(self, record: ConsumerRecord) -> None:
        if record.topic == self._finished:
            if self._usage.ended(record.key) and self._counts_tokens():
                self._count_tokens(record)
            return
        if (found := _ADMITTED.match(record.value)) is None:
            return
        user_id = record.key.decode(errors="replace")
        expires_at_ms = record.timestamp + LONGEST // timedelta(milliseconds=1)
        try:
            at = datetime.fromisoformat(found[2].decode())
            expires_at_ms = min(expires_at_ms, ms_from_utc(at if at.tzinfo else at.replace(tzinfo=UTC)))
        except ValueError:
            pass  # then as long as a job may have
        self._usage.began(user_id, found[1], expires_at_ms=expires_at_ms, is_heard=True)

    def _count_tokens(self, record: ConsumerRecord) -> None:
        try:
            finished: Any = orjson.loads(record.value)
            user_id, tokens = finished["job"]["user_id"], finished["result"]["usage"]["total_tokens"]
        except (ValueError, KeyError, TypeError):
            return  # it has used none, or nobody has said how many
        if isinstance(user_id, str) and isinstance(tokens, int) and tokens > 0:
            self._usage.used(user_id, tokens, at_ms=record.timestamp)
