"""A record of `dead-letters`: the record that could never work, and behind its own headers those that say why."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from schemas.envelope import is_uuid
from schemas.events import utc_from_ms
from schemas.request_fields import without_unstorable

# The first of the headers that are added. A record may have brought some of these names itself, so only what stands
# behind the last of this name is ours.
FIRST_ADDED = "dlq-topic"
LEFT_OUT = "dlq-value-left-out"  # its size in bytes, where the brokers refused it
MAX_TEXT_CHARS = 1000
MAX_INT = 2**31 - 1
MAX_TIME_MS = 253_402_300_799_000  # the end of the year 9999

RawHeaders = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """One dead letter. `headers`: all of them; `job_id`, `run`, `user_id`: where they can be told."""

    partition: int
    offset: int
    at: datetime
    topic: str
    stage: str
    code: str
    reason: str
    attempts: int
    job_id: UUID | None
    run: int | None
    user_id: str | None
    outcome_id: str | None
    key: bytes | None
    headers: RawHeaders
    value: bytes | None

    @classmethod
    def parse(
        cls, *, partition: int, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None,
        headers: RawHeaders,
    ) -> Self:  # fmt: skip
        """Read any bytes: what is not there or makes no sense is empty. Texts are such that Postgres takes them."""
        added = {name: _text(raw) for name, raw in headers[len(original_headers(headers)) :]}
        job_id, run, user_id = is_uuid(added.get("dlq-job-id", "")), _number(added.get("dlq-run")), None
        if job_id is None:
            job_id, run, user_id = _job_in(value)
        return cls(
            partition=partition,
            offset=offset,
            at=utc_from_ms(min(max(0, timestamp_ms), MAX_TIME_MS)),
            topic=added.get("dlq-topic", ""),
            stage=added.get("dlq-stage", ""),
            code=added.get("dlq-code", ""),
            reason=added.get("dlq-reason", ""),
            attempts=_number(added.get("dlq-attempts")) or 1,
            job_id=job_id,
            run=run,
            user_id=added.get("dlq-user-id") or user_id,
            outcome_id=added.get("dlq-outcome-id"),
            key=key,
            headers=headers,
            value=value,
        )


def original_headers(headers: RawHeaders) -> RawHeaders:
    """Those that the record had when it came."""
    for place in range(len(headers) - 1, -1, -1):
        if headers[place][0] == FIRST_ADDED:
            return headers[:place]
    return headers


def _text(raw: bytes | None) -> str:
    text: str = without_unstorable((raw or b"").decode(errors="replace"))
    return text[:MAX_TEXT_CHARS]


def _number(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > len(str(MAX_INT)):
        return None
    return min(int(text), MAX_INT)


def _job_in(value: bytes | None) -> tuple[UUID | None, int | None, str | None]:
    """Of a record that was no event, and whose job nobody could end; so that it is found by its job all the same."""
    try:
        job: Any = json.loads(value or b"")["job"]
        job_id, run, user_id = is_uuid(job["job_id"]), job.get("run", 1), job.get("user_id")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, None, None
    if not isinstance(run, int) or not 0 < run <= MAX_INT:
        run = None
    return job_id, run, _text(user_id.encode(errors="replace")) if isinstance(user_id, str) else None
