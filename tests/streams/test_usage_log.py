"""What the gate hears of jobs that others have admitted, and of what jobs have used."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from processors.errors import RetryableError
from processors.limits.usage import GRACE_MS, Usage
from schemas.events import JobFinished, ms_from_utc
from streams.usage_log import UsageLog
from tests.factories import ACCEPTED_AT, chat_request, job, job_admitted, job_finished
from transport.clients import KafkaAccess

AT_MS = ms_from_utc(ACCEPTED_AT)


class Log(UsageLog):
    """One whose topics are told by hand."""

    def __init__(self, *, wanted: bool = True, pending: Any = None) -> None:
        self.usage = Usage()
        super().__init__(
            KafkaAccess("nowhere:1"), self.usage, admitted="a", finished="f", is_wanted=lambda: wanted,
            counts_tokens=lambda: True, pending=pending,
        )  # fmt: skip
        self.started = 0
        following: Any = SimpleNamespace(start=self._count)
        self._following = following

    def _count(self) -> None:
        self.started += 1

    def hear(self, topic: str, key: str, value: str | bytes) -> None:
        record: Any = SimpleNamespace(
            topic=topic, key=key.encode(), value=value.encode() if isinstance(value, str) else value, timestamp=AT_MS
        )
        self._take(record)

    def admit(self, job_id: UUID, **more: Any) -> None:
        self.hear("a", "alice", job_admitted(job=job(job_id=job_id, **more)).model_dump_json(exclude_none=True))

    def finish(self, event: JobFinished) -> None:
        self.hear("f", str(event.job.job_id), event.model_dump_json(exclude_none=True))


def test_an_admission_counts_until_its_end_or_the_end_of_its_time() -> None:
    log, job_id = Log(), uuid4()
    log.admit(job_id, callback_url='https://x.example/?"expires_at":"2020-01-01T00:00:00Z"', metadata={"a": "b"})
    hour = timedelta(hours=1) // timedelta(milliseconds=1)
    assert log.usage.under_way("alice", at_least=0, now_ms=AT_MS + hour + GRACE_MS - 1) == 1
    assert log.usage.under_way("alice", at_least=0, now_ms=AT_MS + hour + GRACE_MS) == 0
    log.admit(other := uuid4())
    log.finish(job_finished(job_id=other))
    log.admit(other)  # heard late
    assert log.usage.under_way("alice", at_least=0, now_ms=AT_MS) == 0


def test_tokens_are_counted_once_for_each_outcome() -> None:
    log = Log()
    event = job_finished(result={"usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}})
    for _ in range(2):
        log.finish(event)
    log.finish(job_finished(code="timeout"))
    log.finish(job_finished(result={"usage": {"total_tokens": "many"}}))
    log.finish(job_finished(result={"usage": None}))
    assert log.usage.tokens("alice", now_ms=AT_MS) == 12


@pytest.mark.parametrize("value", [b"", b"{", b"\xff", b"[]", b'{"job":{"job_id":"x"}}', b'{"job": 7, "result": []}'])
def test_what_is_no_event_is_passed_over(value: bytes) -> None:
    log = Log()
    log.hear("a", "alice", value)
    log.hear("f", "k", value)
    assert log.usage.under_way("alice", at_least=0, now_ms=AT_MS) == 0


def test_a_long_request_is_not_looked_through() -> None:
    log, job_id = Log(), uuid4()
    log.hear("a", "alice", job_admitted(job=job(job_id=job_id), request=chat_request("x" * 20_000)).model_dump_json())
    assert log.usage.is_under_way(str(job_id).encode())


async def test_nothing_is_followed_before_somebody_has_such_a_limit() -> None:
    log = Log(wanted=False)
    await log.prepare()
    assert log.started == 0


async def test_what_was_under_way_before_is_asked_for_once() -> None:
    asked: list[int] = []

    async def pending() -> Any:
        asked.append(1)
        later = datetime.now(UTC) + timedelta(hours=1)
        return [(UUID(int=1), "alice", later), (UUID(int=2), "bob", later)]

    log = Log(pending=pending)
    for _ in range(2):
        await log.prepare()
    assert (log.started, asked) == (1, [1])
    assert log.usage.under_way("alice", at_least=0, now_ms=AT_MS) == 1

    async def away() -> Any:
        raise RetryableError("postgres-unavailable", "away")

    await Log(pending=away).prepare()
