"""Runs a stage over its topic: decode, run, publish, acknowledge.

A stage's input is finished only when the brokers have all its outputs. What goes wrong in a stage is a result (see
`processors.run_stage`); what goes wrong here or in Kafka acknowledges nothing, ends the process, and comes again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any, TypeVar
from uuid import UUID

from aiokafka.structs import ConsumerRecord
from pydantic import ValidationError

from processors.cancelled import cancelled
from processors.errors import PermanentError, RetryableError
from processors.run_stage import Limits, run_plain_stage, run_stage
from processors.stage import AsyncStage, DeadLetter, Drop, PlainStage, RecordFacts, StageResult
from schemas.envelope import Attributes, Envelope, InvalidEnvelopeError, Record, is_uuid
from schemas.events import Event, Job, JobProgressed
from sinks.base import PoisonableSink, Sink
from streams import metrics
from streams.app import StreamApp
from streams.cancellations import Cancellations
from streams.encode import Encoder, TooLargeError, failure, timed, validation_reason
from streams.lane import Batch, Prepare
from streams.ledger import Ledger

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)
SINK_FIRST_BACKOFF_S = 0.1
SINK_MAX_BACKOFF_S = 5.0


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A record that is no event. `job`: whose end it is, where that can be told."""

    code: str
    reason: str
    attributes: Attributes | None
    job: Job | None


Decode = Callable[[ConsumerRecord], Envelope[Any] | Undecodable]
Stream = AsyncIterator[Batch]


def decoder(event_class: type[E]) -> Decode:
    """Reads records of one of our own topics."""

    def decode(record: ConsumerRecord) -> Envelope[E] | Undecodable:
        try:
            attributes = Attributes.parse(record.headers)
            payload = event_class.model_validate_json(record.value or b"")
        except InvalidEnvelopeError as error:
            return Undecodable("invalid-event", str(error), None, None)
        except ValidationError as error:
            reason = validation_reason(error.errors(include_input=False, include_context=False, include_url=False))
            return Undecodable("invalid-event", reason, attributes, None)
        return Envelope(attributes, payload, record.partition, record.offset)

    return decode


class StageServer:
    """What every stage of a worker is served with."""

    def __init__(
        self,
        app: StreamApp,
        encoder: Encoder,
        *,
        max_retries: int,
        cancellations: Cancellations,
        clock_is_right: Callable[[], bool] = lambda: True,
    ) -> None:
        """`clock_is_right`: False while nothing may be expired, since nobody knows what time it is."""
        self._app, self._encoder, self._max_retries = app, encoder, max_retries
        self._cancellations = cancellations
        cancellations.on_request(self._let_pass)
        self._clock_is_right = clock_is_right

    async def in_order(
        self,
        stream: Stream,
        decode: Decode,
        stage: PlainStage,
        *,
        name: str,
        prepare: Prepare | None = None,
        beside_source: str | None = None,
    ) -> None:
        """Serve a gate stage: one record after another, in log order.

        Args:
            stream: The agent's.
            decode: From a record to an envelope.
            stage: Called as `stage(event, now=..., record=RecordFacts(...))`.
            name: As it stands in ids, metrics and dead letters.
            prepare: Awaited before each batch.
            beside_source: Full name of an output topic whose records go to the partition number that their source
                was read from, with `source-offset` and `source-id` in their headers.
        """

        async def decode_and_prepare(batch: Batch) -> None:
            batch.envelopes = [decode(record) for record in batch.records]
            if prepare is not None:
                await prepare(batch)

        def handle(batch: Batch, index: int) -> list[Record]:
            record, envelope = batch.records[index], batch.envelopes[index]
            started_at = datetime.now(UTC)
            if isinstance(envelope, Undecodable):
                return self._undecodable(record, envelope, name, started_at)
            facts = RecordFacts(record.partition, record.offset, envelope.attributes.event_id)
            result = run_plain_stage(stage, envelope.payload, now=started_at, record=facts)
            outputs = self._records(record, envelope, result, name, started_at)
            if beside_source is None:
                return outputs
            return [_beside(output, facts) if output.topic == beside_source else output for output in outputs]

        async for batch in stream:
            batch.lane.run_in_order(batch, handle, decode_and_prepare)

    async def at_once(self, stream: Stream, decode: Decode, stage: AsyncStage, *, name: str, target: str) -> None:
        """Serve an async stage: up to its lane's limit at once, no order between jobs.

        Args:
            stream: The agent's.
            decode: From a record to an envelope of a `JobEvent` with `timeout_s`.
            stage: Called as `stage(event, now=...)`.
            name: As it stands in ids, metrics and dead letters.
            target: What it works with, as it stands in `attempts`.
        """

        async def handle(record: ConsumerRecord, ledger: Ledger) -> None:
            envelope = decode(record)
            started_at = datetime.now(UTC)
            if isinstance(envelope, Undecodable):
                await self._app.publish(self._undecodable(record, envelope, name, started_at))
                return
            if ledger.is_repeated(envelope.attributes.event_id):
                metrics.EVENTS.labels(name, "repeated").inc()
                return
            result = await self._run(stage, envelope, name=name, target=target, started_at=started_at)
            await self._conclude(record, envelope, result, name, started_at)

        def is_cancelled(record: ConsumerRecord) -> bool:
            job_id = is_uuid((record.key or b"").decode(errors="replace"))
            if job_id is None or not self._cancellations.is_requested(job_id):
                return False
            envelope = decode(record)
            return isinstance(envelope, Envelope) and self._cancellations.is_cancelled(envelope.payload.job)

        async for batch in stream:
            batch.lane.run_at_once(batch, handle, is_cancelled)

    def _let_pass(self, job_id: UUID) -> None:
        for lane in self._app.lanes.values():
            lane.let_pass(str(job_id).encode())

    async def _run(
        self, stage: AsyncStage, envelope: Envelope[Any], *, name: str, target: str, started_at: datetime
    ) -> StageResult:
        """What the stage decided of one event, told as it goes."""
        event = envelope.payload
        job: Job = event.job
        if self._cancellations.is_cancelled(job):
            return cancelled(job, at=started_at)
        await self._progress(envelope, name, "started")

        async def on_retry(attempt: int, code: str) -> None:
            metrics.RETRIES.labels(name, code).inc()
            await self._progress(envelope, name, "retrying", attempt=attempt, code=code)

        limits = Limits(
            max_retries=self._max_retries,
            timeout_s=event.timeout_s,
            expires_in_s=(job.expires_at - started_at).total_seconds() if self._clock_is_right() else inf,
        )
        result = await self._cancellations.unless_cancelled(
            job, run_stage(stage, event, job=job, target=target, limits=limits, now=_utc_now, on_retry=on_retry)
        )
        return cancelled(job, at=_utc_now()) if result is None else result

    async def _conclude(
        self, record: ConsumerRecord, envelope: Envelope[Any], result: StageResult, name: str, started_at: datetime
    ) -> None:
        """Return once all that follows from a result has happened."""
        await self._app.publish(self._records(record, envelope, result, name, started_at))

    async def _progress(
        self, envelope: Envelope[Any], name: str, state: Any, *, attempt: int | None = None, code: str | None = None
    ) -> None:
        job: Job = envelope.payload.job
        progressed = JobProgressed(
            job_id=job.job_id, run=job.run, user_id=job.user_id, stage=name, state=state, at=_utc_now(),
            attempt=attempt, code=code,
        )  # fmt: skip
        index = 1000 + (attempt or 0)  # beside the outputs, whose count is small
        await self._app.tell(self._encoder.event(progressed, cause=envelope.attributes, stage=name, index=index))

    def _records(
        self, record: ConsumerRecord, envelope: Envelope[Any], result: StageResult, name: str, started_at: datetime
    ) -> list[Record]:
        """What follows from a result."""
        metrics.STAGE_SECONDS.labels(name).observe((_utc_now() - started_at).total_seconds())
        cause = envelope.attributes
        if isinstance(result, Drop):
            metrics.EVENTS.labels(name, result.reason).inc()
            return []
        if isinstance(result, DeadLetter):
            return self._dead(record, cause, envelope.payload.job, result, name, started_at)
        try:
            records = [
                self._encoder.event(event, cause=cause, stage=name, index=index)
                for index, event in enumerate(timed(result.events, name, started_at))
            ]
        except TooLargeError as error:
            letter = DeadLetter("output-too-large", f"the result is larger than a topic takes ({error})")
            return self._dead(record, cause, envelope.payload.job, letter, name, started_at)
        metrics.EVENTS.labels(name, "emitted").inc()
        return records

    def _undecodable(self, record: ConsumerRecord, found: Undecodable, name: str, at: datetime) -> list[Record]:
        letter = DeadLetter(found.code, found.reason)
        if found.attributes is None or found.job is None:
            metrics.DEAD_LETTERS.labels(name, letter.code).inc()
            return [self._encoder.dead_letter(record, letter, stage=name, outcome_id=None, at=at)]
        return self._dead(record, found.attributes, found.job, letter, name, at)

    def _dead(
        self, record: ConsumerRecord, cause: Attributes, job: Job, letter: DeadLetter, name: str, started_at: datetime
    ) -> list[Record]:
        """The job's end, then the dead letter that carries the end's id."""
        metrics.DEAD_LETTERS.labels(name, letter.code).inc()
        (finished,) = timed([failure(job, letter, _utc_now())], name, started_at)
        outcome = self._encoder.event(finished, cause=cause, stage=name, index=0)
        outcome_id = dict(outcome.headers)["ce_id"].decode()
        return [
            outcome,
            self._encoder.dead_letter(record, letter, stage=name, outcome_id=outcome_id, at=_utc_now()),
        ]


async def serve_sink(stream: Stream, event_class: type[E], sink: Sink, *, name: str) -> None:
    """Serve a sink: all that waits of a partition in one call, again and again until the target has it.

    A record that is no event is counted and passed over; a single bad row is found by halving the batch.
    """
    decode = decoder(event_class)

    async def handle(records: Sequence[ConsumerRecord]) -> None:
        found = [decode(record) for record in records]
        envelopes = [envelope for envelope in found if isinstance(envelope, Envelope)]
        if len(envelopes) < len(found):
            metrics.EVENTS.labels(name, "undecodable").inc(len(found) - len(envelopes))
            logger.error("%s: %d records are no events and are passed over", name, len(found) - len(envelopes))
        await write_all(sink, envelopes, name=name)
        metrics.EVENTS.labels(name, "stored").inc(len(envelopes))

    async for batch in stream:
        batch.lane.run_as_batch(batch, handle)


async def write_all(
    sink: Sink,
    envelopes: Sequence[Envelope[E]],
    *,
    name: str,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Return once the target has all of it; waits without limit while it is away."""
    if not envelopes:
        return
    backoff = SINK_FIRST_BACKOFF_S
    while True:
        try:
            await sink.write(envelopes)
        except RetryableError as error:
            metrics.RETRIES.labels(name, error.code).inc()
            if backoff == SINK_FIRST_BACKOFF_S:
                logger.warning("%s waits for its target: %s", name, error.message)
            await sleep(backoff)
            backoff = min(SINK_MAX_BACKOFF_S, backoff * 2)
        except PermanentError as error:
            if len(envelopes) > 1:
                half = len(envelopes) // 2
                await write_all(sink, envelopes[:half], name=name, sleep=sleep)
                await write_all(sink, envelopes[half:], name=name, sleep=sleep)
                return
            metrics.EVENTS.labels(name, "refused").inc()
            logger.error("%s: a row was refused: %s", name, error.message)  # noqa: TRY400 no traceback: it may hold text
            if isinstance(sink, PoisonableSink):
                await sink.write_poisoned(envelopes[0])
            return
        else:
            return


def _beside(output: Record, facts: RecordFacts) -> Record:
    headers = [
        *output.headers,
        ("source-offset", b"%d" % facts.offset),
        ("source-id", facts.event_id.encode()),
    ]
    return Record(output.topic, output.key, output.value, headers, facts.partition)


def _utc_now() -> datetime:
    return datetime.now(UTC)
