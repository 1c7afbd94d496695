"""Dead letters that are incidents, too: what somebody wrote to a topic who may not."""

from typing import Any

import orjson
from aiokafka.structs import ConsumerRecord

from processors.stage import DeadLetter
from schemas.envelope import Attributes, Record
from schemas.events import Job, SecurityIncidentDetected, utc_from_ms
from streams.encode import Encoder

# The user whom such a record names has not proven to have written it: no quarantine comes of it (`sinks.incidents`).
INCIDENT_CODES = frozenset({"not-authorized"})
MAX_USER_ID_CHARS = 128
INDEX = 4000  # beside a stage's outputs


def incident_records(
    encoder: Encoder, record: ConsumerRecord, cause: Attributes | None, job: Job | None, letter: DeadLetter, *,
    stage: str,
) -> list[Record]:  # fmt: skip
    """The incident that a dead letter is, if it is one. `cause`, `job`: where the record had them.

    Its user is the one that the record names.
    """
    if letter.code not in INCIDENT_CODES:
        return []
    event = SecurityIncidentDetected(
        at=utc_from_ms(record.timestamp), user_id=job.user_id if job else _named(record.value), reason=letter.code,
        stage=stage, job_id=job.job_id if job else None, run=job.run if job else 1, source="kafka",
    )  # fmt: skip
    named = cause or Attributes(f"{record.topic}/{record.partition}/{record.offset}/{record.timestamp}", "", "")
    return [encoder.event(event, cause=named, stage=stage, index=INDEX)]


def _named(value: bytes | None) -> str:
    """The user whose name stands in a record; empty where there is none that a user could have."""
    try:
        fields: Any = orjson.loads(value or b"")
        user_id = fields["user_id"]
    except (ValueError, KeyError, TypeError):
        return ""
    return user_id if isinstance(user_id, str) and len(user_id) <= MAX_USER_ID_CHARS else ""
