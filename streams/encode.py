"""From events to records: topic, key, headers and ids of what a stage emits."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from aiokafka.structs import ConsumerRecord

from processors.stage import DeadLetter
from schemas.dead_letter import LEFT_OUT
from schemas.envelope import Attributes, Headers, Record
from schemas.events import (
    Event,
    Job,
    JobError,
    JobEvent,
    JobFinished,
    JobProgressed,
    SecurityIncidentDetected,
    StageTiming,
)
from schemas.ids import derived_event_id
from schemas.topics import PROVIDER, Catalog, Topic, event_type

MAX_REASON_CHARS = 500
WITHHELD_HEADER = "authorization"
SOURCE = "/assistant/"
OWN_NAMES = "metadata"  # the field whose names senders choose
NO_JOB = UUID(int=0)  # of an incident whose record names none


class TooLargeError(Exception):
    """An event that no topic would take."""


class Encoder:
    """Knows where each event goes; one per worker."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._topics = {topic.event: topic for topic in catalog if topic.event is not None}
        self._types = {topic.name: event_type(topic) for topic in catalog}
        self._names: dict[tuple[str, str | None], str] = {}

    def event(
        self,
        event: Event,
        *,
        cause: Attributes,
        stage: str,
        index: int,
        instead: Callable[[], Sequence[Record]] | None = None,
    ) -> Record:
        """One event that a stage emitted.

        Args:
            event: What happened.
            cause: The attributes of the stage's input: the same input gives the same ids.
            stage: Who says it.
            index: Its place among the events of this input.
            instead: See `Record`.

        Raises:
            TooLargeError: It is larger than its topic takes.
        """
        topic = self._topics[type(event).__name__]
        job = event.job if isinstance(event, JobEvent) else event
        if not isinstance(job, (Job, JobProgressed, SecurityIncidentDetected)):
            raise TypeError(f"{type(event).__name__} is not about a job")
        value = event.model_dump_json(exclude_none=True).encode()
        if len(value) > topic.max_message_bytes - 8192:  # room for headers and the batch around it
            raise TooLargeError(f"{topic.name}: {len(value)} bytes")
        attributes = Attributes(
            event_id=derived_event_id(
                job.job_id or NO_JOB, cause=cause.event_id, stage=stage, run=job.run, index=index
            ),
            source=SOURCE + stage,
            type=self._types[topic.name],
            caused_by=cause.event_id,
            trace=cause.trace,
        )
        key = str(job.job_id) if topic.key == "job_id" else job.user_id
        return Record(self._name(topic, event), key.encode(), value, attributes.headers(), instead=instead)

    def dead_letter(
        self, record: ConsumerRecord, letter: DeadLetter, *, stage: str, outcome_id: str | None, at: datetime,
        job: Job | None = None,
    ) -> Record:  # fmt: skip
        """A record that can never work: key, value and headers as they came, and why. `job`: whose it was.

        Without its token, which would be there for others to read and to use.
        Where the brokers refuse it as too large, it is told of without its value; where still, without all of its own.
        """
        told = {
            "dlq-topic": record.topic,
            "dlq-code": letter.code,
            "dlq-reason": letter.reason[:MAX_REASON_CHARS],
            "dlq-stage": stage,
            "dlq-attempts": str(max(1, len(letter.attempts))),
            "dlq-time": at.isoformat(),
        }
        if outcome_id is not None:
            told["dlq-outcome-id"] = outcome_id
        if job is not None:
            told |= {"dlq-job-id": str(job.job_id), "dlq-run": str(job.run), "dlq-user-id": job.user_id}
        why: Headers = [(name, value.encode()) for name, value in told.items()]
        left_out: Headers = [*why, (LEFT_OUT, str(len(record.value or b"")).encode())]
        topic, own = (
            self._catalog.full_name("dead-letters"),
            [(name, value) for name, value in record.headers if name.lower() != WITHHELD_HEADER],
        )
        bare = Record(topic, None, b"", left_out)
        # aiokafka sends nothing that has neither key nor value: then the value is empty.
        without_value = Record(
            topic, record.key, _or_empty(None, record.key), [*own, *left_out], instead=lambda: [bare]
        )
        value = _or_empty(record.value, record.key)
        return Record(topic, record.key, value, [*own, *why], instead=lambda: [without_value])

    def _name(self, topic: Topic, event: Event) -> str:
        provider: str | None = getattr(event, "provider", None) if PROVIDER in topic.name else None
        name = self._names.get((topic.name, provider))
        if name is None:
            name = self._names[topic.name, provider] = self._catalog.full_name(topic.name, provider=provider)
        return name


def _or_empty(value: bytes | None, key: bytes | None) -> bytes | None:
    return b"" if value is None and key is None else value


def timed(events: Sequence[Event], stage: str, started_at: datetime) -> list[Event]:
    """The events with this stage's time added to their jobs."""
    timing = StageTiming(stage=stage, started_at=started_at, ended_at=datetime.now(UTC))
    return [
        event.model_copy(update={"job": event.job.with_timing(timing)}) if isinstance(event, JobEvent) else event
        for event in events
    ]


def failure(job: Job, letter: DeadLetter, at: datetime) -> JobFinished:
    """How a job ends whose event is a dead letter."""
    error = JobError(code=letter.code, message=letter.reason, retry_after_s=letter.retry_after_s)
    return JobFinished.failed(job, error=error, at=at).with_attempts(letter.attempts)


def validation_reason(errors: Sequence[Any]) -> str:
    """What does not fit, by path, without the text that did not fit, nor names that are the sender's own."""
    told = [f"{_path(error) or 'value'}: {error['msg']}" for error in errors[:5]]
    return "; ".join(told)[:MAX_REASON_CHARS]


def _path(error: Mapping[str, Any]) -> str:
    parts = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        parts[-1] = "*"
    if OWN_NAMES in parts:
        parts[parts.index(OWN_NAMES) + 1 :] = ["*"]
    return ".".join(parts)
