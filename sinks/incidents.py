"""Incidents in Postgres, and who is in quarantine for them. Every statement on them lives here.

Whoever stores an incident decides on a quarantine in the same transaction, from what is in the table: an incident that
is delivered again is there already, so it counts once. A quarantine is announced before the batch is acknowledged; a
user of the batch whom nobody announced (a crash came between) is announced by whoever writes the batch again.
"""

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

import orjson

from processors.errors import RetryableError
from processors.loops import repeat
from schemas.envelope import Envelope
from schemas.events import FOREVER, SecurityIncidentDetected
from schemas.request_fields import without_unstorable
from sinks.pool import UNAVAILABLE, Pool
from sinks.postgres import InvalidCursorError
from sinks.users import UserRow, UserStore

logger = logging.getLogger(__name__)

ANNOUNCE_WITHIN_S = 5.0
SWEEP_EVERY_S, SWEEP_BATCH = 600.0, 1_000
# Of records whose user has not proven to have written them: or anybody could put anybody in quarantine.
UNPROVEN = frozenset({"not-authorized"})

INSERT = """
INSERT INTO incidents (incident_id, at, user_id, reason, stage, job_id, source, address, score, excerpt, counts)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::text[],
                     $8::text[], $9::double precision[], $10::text[], $11::boolean[])
ON CONFLICT (incident_id) DO NOTHING
"""
# Of the users of a batch those whose incidents lie close enough together: so many of them within a window that ends
# not before the batch begins. What brought about, or came before, an earlier quarantine counts no more.
QUARANTINE = """
UPDATE users u SET quarantined_until = $5, incidents_count_from = now(), announced = false
WHERE u.user_id = ANY($1::text[]) AND (u.role <> 'admin' OR $6)
  AND (u.quarantined_until IS NULL OR u.quarantined_until <= now())
  AND EXISTS (
      SELECT FROM (
          SELECT at, lag(at, $3::int - 1) OVER (ORDER BY at, incident_id) AS first_at
          FROM incidents i
          WHERE i.user_id = u.user_id AND i.counts AND i.at >= $2::timestamptz - $4::interval
            AND (u.incidents_count_from IS NULL OR i.at > u.incidents_count_from)
      ) AS counted WHERE at - first_at <= $4::interval)
"""
UNANNOUNCED = "SELECT user_id FROM users WHERE user_id = ANY($1::text[]) AND NOT announced ORDER BY user_id"
COLUMNS = "incident_id, at, user_id, reason, stage, job_id, source, address, score, excerpt"
# $1 to $5: a Filter; $6 and $7: the place in the list where it goes on.
MATCHES = """($1::text IS NULL OR user_id = $1) AND ($2::text IS NULL OR reason = $2)
             AND ($3::uuid IS NULL OR job_id = $3) AND ($4::timestamptz IS NULL OR at >= $4)
             AND ($5::timestamptz IS NULL OR at < $5)"""
NEWEST = f"""SELECT {COLUMNS} FROM incidents
             WHERE {MATCHES} AND ($6::timestamptz IS NULL OR (at, incident_id) < ($6, $7::text))
             ORDER BY at DESC, incident_id DESC LIMIT $8"""  # noqa: S608 constants
OLDEST = f"""SELECT {COLUMNS} FROM incidents
             WHERE {MATCHES} AND ($6::timestamptz IS NULL OR (at, incident_id) > ($6, $7::text))
             ORDER BY at, incident_id LIMIT $8"""  # noqa: S608 constants
DELETE_OLD = """
DELETE FROM incidents
WHERE incident_id IN (SELECT incident_id FROM incidents WHERE at < $1 ORDER BY at, incident_id LIMIT $2)
"""

Announce = Callable[[UserRow], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineRules:
    """When somebody is put in quarantine, and for how long.

    Attributes:
        after: So many incidents; 0: never.
        window_s: Within so many seconds.
        lasts_s: 0: until somebody lifts it.
        admins: They are, too.
    """

    after: int = 10
    window_s: int = 600
    lasts_s: int = 3600
    admins: bool = False


class IncidentSink:
    """`security-incident-detected` -> a row each, and the quarantine that they are reason for."""

    def __init__(self, pool: Pool, rules: QuarantineRules, *, announce: Announce) -> None:
        """`announce`: publishes a user."""
        self._pool, self._rules, self._announce = pool, rules, announce
        self._users = UserStore(pool)

    async def write(self, envelopes: Sequence[Envelope[SecurityIncidentDetected]]) -> None:
        """As `Sink.write`; returns once those who are in quarantine by it were announced."""
        if not envelopes:
            return
        rows = sorted({row[0]: row for row in map(_row, envelopes)}.values())  # sorted: no two batches wait for another
        users = sorted({row[2] for row in rows if row[-1]})
        begin = min(row[1] for row in rows)
        rules = self._rules
        async with self._pool.connection() as connection:
            if not rules.after or not users:
                await connection.execute(INSERT, *zip(*rows, strict=True))
                return
            until = datetime.now(UTC) + timedelta(seconds=rules.lasts_s) if rules.lasts_s else FOREVER
            async with connection.transaction():
                await connection.execute(INSERT, *zip(*rows, strict=True))
                await connection.execute(
                    QUARANTINE, users, begin, rules.after, timedelta(seconds=rules.window_s), until, rules.admins
                )  # fmt: skip
            untold = [row["user_id"] for row in await connection.fetch(UNANNOUNCED, users)]
        for user_id in untold:
            await self._tell(user_id)

    async def write_poisoned(self, envelope: Envelope[SecurityIncidentDetected]) -> None:
        """As `PoisonableSink.write_poisoned`."""
        bare = envelope.payload.model_copy(update={"excerpt": "", "address": None})
        await self.write([Envelope(envelope.attributes, bare)])

    async def _tell(self, user_id: str) -> None:
        try:
            async with asyncio.timeout(ANNOUNCE_WITHIN_S), self._users.announcing(user_id) as row:
                if row is not None:
                    await self._announce(row)
                    if row.quarantined_until is not None:
                        logger.warning("the user %s is in quarantine until %s", user_id, row.quarantined_until)
        except TimeoutError:
            raise RetryableError(UNAVAILABLE, "Kafka or Postgres does not answer") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which incidents: all that is given must fit; `to` is exclusive."""

    user_id: str | None = None
    reason: str | None = None
    job_id: UUID | None = None
    since: datetime | None = None
    to: datetime | None = None

    def arguments(self) -> tuple[Any, ...]:
        """As the statements take them."""
        return self.user_id, self.reason, self.job_id, self.since, self.to


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """An incident as it is stored."""

    incident_id: str
    at: datetime
    user_id: str
    reason: str
    stage: str
    job_id: UUID | None
    source: str | None
    address: str | None
    score: float
    excerpt: str

    def view(self) -> dict[str, Any]:
        """As admins see it."""
        told = {**asdict(self), "job_id": str(self.job_id) if self.job_id else None}
        return {name: value for name, value in told.items() if value is not None}

    @property
    def cursor(self) -> str:
        """What names its place in the list."""
        place = [self.at.isoformat(), self.incident_id]
        return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Place:
    """Behind an incident, in the order of a list."""

    at: datetime | None = None
    incident_id: str | None = None

    @classmethod
    def parse(cls, cursor: str | None) -> Self:
        """Raises InvalidCursorError where it is not one of ours."""
        if cursor is None:
            return cls()
        try:
            at, incident_id = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
            place = cls(datetime.fromisoformat(at), without_unstorable(incident_id))
        except (ValueError, TypeError, AttributeError, OverflowError, binascii.Error):
            raise InvalidCursorError from None
        if place.at is None or place.at.tzinfo is None or not isinstance(place.incident_id, str):
            raise InvalidCursorError
        return place


class IncidentStore:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def page(self, wanted: Filter, *, limit: int, cursor: str | None) -> tuple[list[IncidentRow], str | None]:
        """Newest first: at most `limit`, and the cursor of those after them.

        Raises:
            InvalidCursorError: It is not one of ours.
        """
        rows = await self._read(NEWEST, wanted, Place.parse(cursor), limit + 1)
        return rows[:limit], rows[limit - 1].cursor if len(rows) > limit else None

    async def oldest(self, wanted: Filter, *, limit: int, after: str | None) -> list[IncidentRow]:
        """Oldest first, behind the one whose cursor is given; raises as `page`."""
        return await self._read(OLDEST, wanted, Place.parse(after), limit)

    async def _read(self, statement: str, wanted: Filter, place: Place, limit: int) -> list[IncidentRow]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(statement, *wanted.arguments(), place.at, place.incident_id, limit)
        return [IncidentRow(**row) for row in rows]

    async def delete_older_than(self, at: datetime, *, limit: int = SWEEP_BATCH) -> int:
        """Delete at most so many; how many they were."""
        async with self._pool.connection() as connection:
            done: str = await connection.execute(DELETE_OLD, at, limit)
        return int(done.rpartition(" ")[2])


async def sweep(store: IncidentStore, *, kept_days: int) -> None:
    """Until cancelled: delete what is older."""

    async def delete() -> None:
        while await store.delete_older_than(datetime.now(UTC) - timedelta(days=kept_days)) == SWEEP_BATCH:
            await asyncio.sleep(0.1)  # others want the database too

    await repeat(delete, "sweeping incidents", every_s=SWEEP_EVERY_S)


def _row(envelope: Envelope[SecurityIncidentDetected]) -> tuple[Any, ...]:
    told = envelope.payload
    # Anyone with the right to write to the topic may have written it.
    texts = [without_unstorable(text) for text in (envelope.attributes.event_id, told.user_id, told.reason, told.stage)]
    incident_id, user_id, reason, stage = texts
    excerpt, address = without_unstorable(told.excerpt), without_unstorable(told.address)
    return (
        incident_id, told.at, user_id, reason, stage, told.job_id, told.source, address, told.score, excerpt,
        reason not in UNPROVEN,
    )  # fmt: skip
