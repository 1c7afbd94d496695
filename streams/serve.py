"""Runs a stage over its topic: decode, run, publish, acknowledge.

A stage's input is finished only when the brokers have all its outputs. What goes wrong in a stage is a result (see
`processors.run_stage`); what goes wrong here or in Kafka acknowledges nothing, ends the process, and comes again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import Any
from uuid import UUID

from aiokafka.structs import ConsumerRecord

from processors.cancelled import CANCELLED, cancelled
from processors.completion.fall_over import FallOver
from processors.errors import PermanentError, RetryableError
from processors.ports import DueWriter
from processors.retries import LONG_FIRST_S, MAX_ATTEMPTS_ON_THE_WAY, latest
from processors.run_stage import Limits, Past, run_plain_stage, run_stage
from processors.stage import AsyncStage, DeadLetter, Drop, Hop, Later, PlainStage, RecordFacts, StageResult
from schemas.envelope import Attributes, Envelope, Record, first_header, is_uuid
from schemas.events import Job, JobFinished, JobProgressed
from streams import metrics
from streams.app import StreamApp
from streams.batch import Batch, Prepare
from streams.cancellations import Cancellations
from streams.cause import CAUSE
from streams.decode import Decode, Undecodable
from streams.encode import Encoder, TooLargeError, failure, timed
from streams.guard import ProviderGuard
from streams.incidents import incident_records
from streams.later import Postponer, as_released, put_off
from streams.ledger import MAX_CRASHES, Ledger

logger = logging.getLogger(__name__)

ENDED_TIMEOUT_S = 3.0
HOP_INDEX = 3000  # beside a stage's outputs
CRASHED = DeadLetter("crashed-worker", "it ended each process that had it in hand, the last one alone; not tried again")


EndedRuns = Callable[[Sequence[tuple[UUID, int]]], Awaitable[Set[tuple[UUID, int]]]]
Stream = AsyncIterator[Batch]


class StageServer:
    """What every stage of a worker is served with."""

    def __init__(
        self,
        app: StreamApp,
        encoder: Encoder,
        *,
        max_retries: int,
        cancellations: Cancellations,
        long_first_s: float = LONG_FIRST_S,
        due: DueWriter | None = None,
        clock_is_right: Callable[[], bool] = lambda: True,
        ended_runs: EndedRuns | None = None,
    ) -> None:
        """What is there for all stages.

        Args:
            app: Of the role.
            encoder: Of the worker.
            max_retries: Quick tries after the first.
            cancellations: Jobs that are not to go on; what is at work for one is cut.
            long_first_s: The first wait of an event that is put off.
            due: Where events are put off to; without it they are held in place.
            clock_is_right: False while nothing may be expired, since nobody knows what time it is.
            ended_runs: Which of these runs of jobs have ended; asked after an assignment, so that none is paid twice.
        """
        self._app, self._encoder, self._max_retries = app, encoder, max_retries
        self._cancellations = cancellations
        cancellations.on_request(self._let_pass)
        self._long_first_s, self._postponer = long_first_s, Postponer(due)
        self._clock_is_right, self._ended_runs = clock_is_right, ended_runs

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
            batch.envelopes = [_decoded(decode, record, batch.ledger) for record in batch.records]
            if prepare is not None:
                await prepare(batch)

        def handle(batch: Batch, index: int) -> list[Record]:
            record, envelope = batch.records[index], batch.envelopes[index]
            started_at = datetime.now(UTC)
            if isinstance(envelope, Undecodable):
                return self._undecodable(record, envelope, name, started_at)
            if batch.ledger.crashes(record.offset) >= MAX_CRASHES:
                return self._dead(record, envelope.attributes, envelope.payload.job, CRASHED, name, started_at)
            facts = RecordFacts(record.partition, record.offset, envelope.attributes.event_id)
            result = run_plain_stage(stage, envelope.payload, name=name, now=started_at, record=facts)
            outputs = self._records(record, envelope, result, name, started_at)
            if beside_source is None:
                return outputs
            return [_beside(output, facts) if output.topic == beside_source else output for output in outputs]

        async for batch in stream:
            batch.lane.run_in_order(batch, handle, decode_and_prepare)

    async def at_once(
        self,
        stream: Stream,
        decode: Decode,
        stage: AsyncStage,
        *,
        name: str,
        target: str | None = None,
        guard: ProviderGuard | None = None,
        fall_over: FallOver | None = None,
        tells_start: bool = True,
    ) -> None:
        """Serve an async stage: up to its lane's limit at once, no order between jobs.

        Args:
            stream: The agent's.
            decode: From a record to an envelope of a `WorkEvent`.
            stage: Called as `stage(event, now=...)`.
            name: As it stands in ids, metrics and dead letters.
            target: What it works with, as it stands in `attempts`; None: the provider that each event names.
            guard: Asked before each try but the first, which its lane has asked it for.
            fall_over: How events go on to their next provider; None: they do not.
            tells_start: False where what came before has told all that its start would say.
        """

        async def handle(record: ConsumerRecord, ledger: Ledger) -> None:
            envelope = _decoded(decode, record, ledger)
            started_at = datetime.now(UTC)
            if isinstance(envelope, Undecodable):
                await self._app.publish(self._undecodable(record, envelope, name, started_at))
                return
            if ledger.crashes(record.offset) >= MAX_CRASHES:
                await self._conclude(record, envelope, CRASHED, name, started_at)
                return
            if ledger.is_repeated(envelope.attributes.event_id):
                metrics.outcome_of(name, "repeated").inc()
                return
            while True:
                result = await self._run(
                    stage,
                    envelope,
                    name=name,
                    target=target or envelope.payload.provider,
                    started_at=started_at,
                    guard=guard,
                    fall_over=fall_over,
                    tells_start=tells_start,
                )
                if isinstance(result, Hop):
                    await self._tell_of_hop(envelope, result, name)
                if not isinstance(result, Later):
                    await self._conclude(record, envelope, result, name, started_at)
                    return
                again = await self._put_off(record, envelope, result, name, started_at)
                if again is None or ledger.is_repeated(again.attributes.event_id):  # a row says so, or has said so
                    return
                envelope, started_at = again, _utc_now()
                if guard is not None:
                    guard.pace.add()

        async def without_a_job_left(batch: Batch) -> set[int]:
            return await self._ended(batch, decode, name)

        def is_cancelled(record: ConsumerRecord) -> bool:
            job_id = is_uuid((record.key or b"").decode(errors="replace"))
            if job_id is None or not self._cancellations.is_requested(job_id):
                return False
            envelope = decode(record)
            return isinstance(envelope, Envelope) and self._cancellations.is_cancelled(envelope.payload.job)

        def is_over(record: ConsumerRecord) -> bool:
            envelope = decode(record)
            if isinstance(envelope, Undecodable):
                return True
            return self._clock_is_right() and bool(envelope.payload.job.expires_at <= _utc_now())

        async for batch in stream:
            look_up = without_a_job_left if self._ended_runs else None
            batch.lane.run_at_once(batch, handle, look_up=look_up, ahead=is_cancelled, over=is_over)

    def _let_pass(self, job_id: UUID) -> None:
        for lane in self._app.lanes.values():
            lane.let_pass(str(job_id).encode())

    async def _ended(self, batch: Batch, decode: Decode, name: str) -> set[int]:
        """Offsets of those whose job has its outcome: an earlier owner did them and did not come to say so."""
        runs: dict[int, tuple[UUID, int]] = {}
        for record in batch.records:
            envelope = _decoded(decode, record, batch.ledger)
            if isinstance(envelope, Envelope):
                runs[record.offset] = (envelope.payload.job.job_id, envelope.payload.job.run)
        if not runs or self._ended_runs is None:
            return set()
        try:
            async with asyncio.timeout(ENDED_TIMEOUT_S):
                ended = await self._ended_runs(list(runs.values()))
        except (RetryableError, PermanentError, TimeoutError):
            return set()  # nobody knows: they run, at least once
        found = {offset for offset, run in runs.items() if run in ended}
        metrics.outcome_of(name, "already-ended").inc(len(found))
        return found

    async def _run(
        self, stage: AsyncStage, envelope: Envelope[Any], *, name: str, target: str, started_at: datetime,
        guard: ProviderGuard | None, fall_over: FallOver | None, tells_start: bool,
    ) -> StageResult:  # fmt: skip
        """What the stage decided of one event, told as it goes."""
        event = envelope.payload
        job: Job = event.job
        if (why := self._cancellations.why_not(job)) is not None:
            return cancelled(job, at=started_at, code=why)
        earlier = latest(event.attempts, MAX_ATTEMPTS_ON_THE_WAY)
        if tells_start or earlier:
            await self._progress(envelope, name, "started", attempts=earlier or None)

        async def on_retry(attempt: int, code: str) -> None:
            metrics.RETRIES.labels(name, code).inc()
            await self._progress(envelope, name, "retrying", attempt=attempt, code=code)

        CAUSE.set(envelope.attributes)
        limits = Limits(
            max_retries=self._max_retries,
            timeout_s=event.work_s,
            expires_in_s=(job.expires_at - started_at).total_seconds() if self._clock_is_right() else inf,
            long_first_s=self._long_first_s,
        )
        running = run_stage(
            stage, event, job=job, target=target, limits=limits, past=Past(event.retry, event.attempts), now=_utc_now,
            on_retry=on_retry, name=name, turn=guard.turn if guard is not None else None,
            onward=fall_over.of(event) if fall_over is not None else None,
        )  # fmt: skip
        result = await self._cancellations.unless_cancelled(job, running)
        if result is None:
            return cancelled(job, at=_utc_now(), code=self._cancellations.why_not(job) or CANCELLED)
        return result

    async def _tell_of_hop(self, envelope: Envelope[Any], hop: Hop, name: str) -> None:
        metrics.FALLOVERS.labels(hop.source, hop.reason).inc()
        attempts = latest(hop.event.attempts, MAX_ATTEMPTS_ON_THE_WAY)
        await self._progress(
            envelope, name, "retrying", attempt=len(hop.event.attempts), code=hop.code, attempts=attempts
        )  # fmt: skip

    async def _put_off(
        self, record: ConsumerRecord, envelope: Envelope[Any], later: Later, name: str, started_at: datetime
    ) -> Envelope[Any] | None:
        """None once the event is kept for later; else the event as it is to be run now, having been held until then."""
        try:
            due = put_off(envelope, later, self._encoder, stage=name, now=_utc_now())
        except TooLargeError:
            letter = DeadLetter(later.code, later.message, None, later.attempts)
            await self._conclude(record, envelope, letter, name, started_at)
            return None
        metrics.RETRIES.labels(name, later.code).inc()
        await self._progress(
            envelope, name, "waiting", attempt=len(later.attempts), code=later.code, retry_at=due.due_at,
            attempts=due.attempts,
        )  # fmt: skip
        if await self._postponer.take(due, record, self._app.lanes[record.topic]):
            metrics.outcome_of(name, "put-off").inc()
            return None
        return as_released(due, envelope)

    async def _conclude(
        self, record: ConsumerRecord, envelope: Envelope[Any], result: StageResult, name: str, started_at: datetime
    ) -> None:
        """Return once all that follows from a result has happened."""
        await self._app.publish(self._records(record, envelope, result, name, started_at))

    async def _progress(
        self, envelope: Envelope[Any], name: str, state: Any, *, attempt: int | None = None, **more: Any
    ) -> None:
        job: Job = envelope.payload.job
        progressed = JobProgressed(
            job_id=job.job_id, run=job.run, user_id=job.user_id, stage=name, state=state, at=_utc_now(),
            attempt=attempt, **more,
        )  # fmt: skip
        index = 1000 + (attempt or 0)  # beside the outputs, whose count is small
        await self._app.tell(self._encoder.event(progressed, cause=envelope.attributes, stage=name, index=index))

    def _records(
        self, record: ConsumerRecord, envelope: Envelope[Any], result: StageResult, name: str, started_at: datetime
    ) -> list[Record]:
        """What follows from a result."""
        if isinstance(result, Later):  # only `at_once` can put off
            result = DeadLetter(result.code, result.message, None, result.attempts)
        metrics.seconds_of(name).observe((_utc_now() - started_at).total_seconds())
        cause = envelope.attributes
        luck = self._app.lanes[record.topic].luck
        if isinstance(result, Drop):
            metrics.outcome_of(name, result.reason).inc()
            luck.good()
            return []
        if isinstance(result, DeadLetter):
            return self._dead(record, cause, envelope.payload.job, result, name, started_at)

        def refused(why: str = "the brokers refuse it") -> list[Record]:
            letter = DeadLetter("output-too-large", f"the result is larger than a topic takes ({why})")
            return self._dead(record, cause, envelope.payload.job, letter, name, started_at)

        if isinstance(result, Hop):
            (event,) = timed([result.event], name, started_at)
            try:
                hop = self._encoder.event(event, cause=cause, stage=name, index=HOP_INDEX, instead=refused)
            except TooLargeError as error:
                return refused(str(error))
            metrics.outcome_of(name, "fell-over").inc()
            return [hop]
        metrics.count_risks(envelope.payload.job, result.events)
        try:
            records = [
                self._encoder.event(event, cause=cause, stage=name, index=index, instead=refused)
                for index, event in enumerate(timed(result.events, name, started_at))
            ]
        except TooLargeError as error:
            return refused(str(error))
        metrics.outcome_of(name, "emitted").inc()
        codes = [event.error.code for event in result.events if isinstance(event, JobFinished) and event.error]
        if not any(luck.says_nothing(code) for code in codes):
            luck.good()
        return records

    def _undecodable(self, record: ConsumerRecord, found: Undecodable, name: str, at: datetime) -> list[Record]:
        letter = DeadLetter(found.code, found.reason)
        if found.attributes is None or found.job is None:
            self._count_dead(record, letter, name)
            dead = self._encoder.dead_letter(record, letter, stage=name, outcome_id=None, at=at)
            return [dead, *incident_records(self._encoder, record, found.attributes, found.job, letter, stage=name)]
        return self._dead(record, found.attributes, found.job, letter, name, at)

    def _dead(
        self, record: ConsumerRecord, cause: Attributes, job: Job, letter: DeadLetter, name: str, started_at: datetime
    ) -> list[Record]:
        """The job's end, then the dead letter that carries the end's id."""
        self._count_dead(record, letter, name)
        (finished,) = timed([failure(job, letter, _utc_now())], name, started_at)
        outcome = self._encoder.event(finished, cause=cause, stage=name, index=0)
        outcome_id = first_header(outcome.headers, "ce_id")
        return [
            outcome,
            self._encoder.dead_letter(record, letter, stage=name, outcome_id=outcome_id, at=_utc_now(), job=job),
            *incident_records(self._encoder, record, cause, job, letter, stage=name),
        ]

    def _count_dead(self, record: ConsumerRecord, letter: DeadLetter, name: str) -> None:
        metrics.DEAD_LETTERS.labels(name, letter.code).inc()
        self._app.lanes[record.topic].luck.bad(letter.code)


def _decoded(decode: Decode, record: ConsumerRecord, ledger: Ledger) -> Envelope[Any] | Undecodable:
    """Its envelope; one that killed a process once more, on the way to its dead letter, is not even looked into."""
    if ledger.crashes(record.offset) > MAX_CRASHES:
        return Undecodable(CRASHED.code, CRASHED.reason, None, None)
    return decode(record)


def _beside(output: Record, facts: RecordFacts) -> Record:
    headers = [
        *output.headers,
        ("source-offset", b"%d" % facts.offset),
        ("source-id", facts.event_id.encode()),
    ]
    return replace(output, headers=headers, partition=facts.partition)


def _utc_now() -> datetime:
    return datetime.now(UTC)
