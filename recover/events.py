"""Unfinished jobs and users from Postgres, for a cluster that has lost everything.

A job goes back to `job-admitted`, under its own id and run, and takes the normal way from there. One that the cluster
knows already is left alone, and the ids are the same each time, so running it twice makes no second job.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from recover.errors import RecoverError
from recover.progress import Report
from recover.reader import ends_of, read
from schemas.envelope import Attributes, Envelope, Record
from schemas.events import Event, JobAdmitted, JobError, JobFinished
from schemas.topics import Catalog
from sinks.idempotency import IdempotencyStore
from sinks.pool import Pool
from sinks.unfinished import UnfinishedJob, UnfinishedJobs
from sinks.users import UserStore
from streams.decode import decoder
from streams.encode import Encoder, TooLargeError
from transport.clients import KafkaAccess
from transport.closing import close

JOBS_AT_ONCE = 100_000  # ids in memory; the topics are read once for each so many
SENT_AT_ONCE = 500
SENT_WITHIN_S = 60.0
STAGE = "recover"
CAUSE = Attributes(event_id=STAGE, source=f"/assistant/{STAGE}", type=STAGE)


@dataclass(slots=True)
class Redriven:
    """What was published. `known`: jobs that the cluster has; `lost`: those whose request is not in their row.

    `keys`: idempotency keys of jobs that are gone; the same request again is published again.
    """

    users: int = 0
    jobs: int = 0
    cancelled: int = 0
    known: int = 0
    lost: int = 0
    keys: int = 0


async def redrive(access: KafkaAccess, catalog: Catalog, pool: Pool, *, report: Report) -> Redriven:
    """Publish all users, and every unfinished job that the cluster does not have.

    Each job gets as much time from now as it had from its acceptance, up to a day: what was lost for an hour is not
    ended as expired at once. Run it before workers with the role `sink`, which end jobs that are long past their time.

    Args:
        access: The cluster, with its topics.
        catalog: Its topics.
        pool: The database.
        report: Told how far it is.

    Raises:
        RecoverError: Kafka does not answer, or not for long enough.
    """
    done = Redriven()
    producer = AIOKafkaProducer(**access.options(), acks="all", enable_idempotence=True)
    try:
        await producer.start()
        done.keys = await IdempotencyStore(pool).forget_without_a_job()
        await _announce_users(producer, catalog.full_name("user-updated"), UserStore(pool), done, report)
        store, encoder = UnfinishedJobs(pool), Encoder(catalog)
        report.begin("jobs", await store.count())
        after: UUID | None = None
        while page := await store.page(after=after, limit=JOBS_AT_ONCE):
            after = page[-1]
            known = await _known(access, catalog, set(page))
            done.known += len(known)
            report.advance(len(known))
            missing = [job_id for job_id in page if job_id not in known]
            for first in range(0, len(missing), SENT_AT_ONCE):
                some = missing[first : first + SENT_AT_ONCE]
                jobs = await store.renew(some, now=datetime.now(UTC))
                await _send(producer, [found for job in jobs if (found := _record(job, encoder, done)) is not None])
                report.advance(len(some))
    except (KafkaError, OSError) as error:
        raise RecoverError(access.refusal or f"Kafka does not answer ({type(error).__name__}); run it again") from error
    finally:
        await close(producer.stop)
    return done


async def _announce_users(
    producer: AIOKafkaProducer, topic: str, users: UserStore, done: Redriven, report: Report
) -> None:
    report.begin("users", 0)
    after = ""
    while page := await users.page(after=after, limit=SENT_AT_ONCE):
        after = page[-1].user_id
        await _send(producer, [row.announcement(topic) for row in page])
        done.users += len(page)
        report.advance(len(page))


async def _known(access: KafkaAccess, catalog: Catalog, wanted: set[UUID]) -> set[UUID]:
    """Those of them that were admitted or have ended in this cluster."""
    known: set[UUID] = set()
    events: tuple[tuple[str, type[Any]], ...] = (("job-admitted", JobAdmitted), ("job-finished", JobFinished))
    for name, event in events:
        decode = decoder(event)
        async for records in read(access, await ends_of(access, catalog.full_name(name))):
            found = [decode(record) for record in records]
            known.update(envelope.payload.job.job_id for envelope in found if isinstance(envelope, Envelope))
            known &= wanted
    return known


def _record(unfinished: UnfinishedJob, encoder: Encoder, done: Redriven) -> Record | None:
    """What begins it again, or ends it where its user wanted that."""
    event = _event(unfinished)
    if event is None:
        done.lost += 1
        return None
    try:
        record = encoder.event(event, cause=CAUSE, stage=STAGE, index=0)
    except TooLargeError:
        done.lost += 1
        return None
    if isinstance(event, JobAdmitted):
        done.jobs += 1
    else:
        done.cancelled += 1
    return record


def _event(unfinished: UnfinishedJob) -> Event | None:
    if unfinished.is_cancelled:
        error = JobError(code="cancelled", message="the job was cancelled")
        return JobFinished.failed(unfinished.job, error=error, at=datetime.now(UTC))
    try:
        return JobAdmitted.model_validate({"job": unfinished.job, "request": unfinished.request})
    except ValidationError:  # there is none, or it is none that this version takes
        return None


async def _send(producer: AIOKafkaProducer, records: Sequence[Record]) -> None:
    """Return once the brokers have all of them.

    Raises:
        TimeoutError: They have not had them in time; the producer itself would never give them up.
    """
    async with asyncio.timeout(SENT_WITHIN_S):
        answers = [
            await producer.send(record.topic, record.value, key=record.key, headers=record.headers)
            for record in records
        ]
        await asyncio.gather(*answers)
