"""Rows of jobs and incidents from the topics, for a database that is empty or of yesterday.

Through the sinks that wrote them before, so the rules are the same and repeating it changes nothing. Outcomes first: a
job that has one never shows as pending meanwhile, which would be taken for one that nobody works on. Only what the
sinks have acknowledged is read: what comes after that they write themselves, webhooks included.
"""

from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from recover.errors import RecoverError
from recover.progress import Report
from recover.reader import Ends, ends_of, read
from schemas.audio_links import AudioLinks
from schemas.envelope import Envelope
from schemas.events import JobAdmitted, JobFinished, SecurityIncidentDetected, UserUpdated
from schemas.topics import Catalog
from sinks.base import Sink
from sinks.document_lists import DocumentLists
from sinks.incidents import IncidentSink, QuarantineRules
from sinks.pool import Pool
from sinks.postgres import OutcomeSink, PendingSink
from sinks.users import UserRow, UserStore
from streams.decode import decoder
from streams.serve_sink import write_all
from transport import admin
from transport.clients import KafkaAccess
from transport.table import CompactedTable

NOT_AGAIN = "given up: the row was rebuilt from job-finished, and the webhook may have been delivered before"
USERS_AT_ONCE = 1_000
NO_QUARANTINE = QuarantineRules(after=0)  # whoever was in one has served it, or was let out


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was read.

    `unknown_users`: those on `user-updated` who are not in the database; `lost_documents`: how many of each user that
    jobs have stored and that are not there, either.
    """

    outcomes: int
    admitted: int
    unknown_users: list[str]
    lost_documents: dict[str, int]


async def rebuild(
    access: KafkaAccess, catalog: Catalog, pool: Pool, *, webhooks: bool, report: Report,
    audio_links: AudioLinks | None = None,
) -> Rebuilt:  # fmt: skip
    """Write the rows of all jobs that the topics still have. May be run again, and beside the workers.

    Args:
        access: The cluster.
        catalog: Its topics.
        pool: The database, with this version's schema.
        webhooks: Make the webhooks of outcomes due again, whether or not they were delivered; otherwise their rows
            are `given-up`, with the reason among their attempts.
        report: Told how far it is.
        audio_links: Of this deployment, so that a webhook of a job which has spoken says what it said before.

    Raises:
        RecoverError: Kafka does not answer.
    """
    outcomes = OutcomeSink(pool, give_up_webhooks=None if webhooks else NOT_AGAIN, audio_links=audio_links)
    steps: tuple[tuple[str, type[Any], Sink], ...] = (
        ("job-finished", JobFinished, outcomes),
        ("job-admitted", JobAdmitted, PendingSink(pool)),
        ("security-incident-detected", SecurityIncidentDetected, IncidentSink(pool, NO_QUARANTINE, announce=_nobody)),
    )
    counts = []
    # Both ends before anything is written: an outcome that comes meanwhile is the sinks' own.
    ends = [await _acknowledged(access, catalog, topic) for topic, _, _ in steps]
    for (topic, event, sink), end in zip(steps, ends, strict=True):
        report.begin(topic, sum(end.values()))
        counts.append(await _replay(access, end, event, sink, report))
    report.begin("user-updated", 1)
    unknown = await _unknown_users(access, catalog, pool)
    report.advance(1)
    return Rebuilt(counts[0], counts[1], unknown, await DocumentLists(pool).lost())


async def _acknowledged(access: KafkaAccess, catalog: Catalog, name: str) -> Ends:
    """How far the sinks are in a topic; where they have not begun there is nothing to recover."""
    there = await ends_of(access, catalog.full_name(name))
    try:
        committed = await admin.committed(access, catalog.group("sink"))
    except admin.TopicsError as error:
        raise RecoverError(str(error)) from error
    return {at: min(end, committed.get(at, 0)) for at, end in there.items()}


async def _replay(access: KafkaAccess, ends: Ends, event: type[Any], sink: Sink, report: Report) -> int:
    decode, count = decoder(event), 0
    reached: dict[TopicPartition, int] = {}
    async for records in read(access, ends):
        found = [decode(record) for record in records]
        envelopes = [envelope for envelope in found if isinstance(envelope, Envelope)]
        await write_all(sink, envelopes, name="recover")
        count += len(envelopes)
        at, offset = TopicPartition(records[0].topic, records[0].partition), records[-1].offset + 1
        report.advance(offset - reached.get(at, 0))
        reached[at] = offset
    return count


async def _nobody(_: UserRow) -> None:
    """Is told: nobody is put in quarantine here."""


async def _unknown_users(access: KafkaAccess, catalog: Catalog, pool: Pool) -> list[str]:
    table = CompactedTable(access, catalog.full_name("user-updated"), UserUpdated)
    try:
        await table.start()
    except (KafkaError, OSError) as error:
        raise RecoverError(f"user-updated cannot be read: {error}") from error
    finally:
        await table.stop()
    names, store = sorted(table.values), UserStore(pool)
    unknown: list[str] = []
    for first in range(0, len(names), USERS_AT_ONCE):
        unknown += await store.unknown(names[first : first + USERS_AT_ONCE])
    return unknown
