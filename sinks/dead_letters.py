"""Dead letters in Postgres: stored as they came, listed, claimed for a redrive. Every statement on them lives here.

A job's row says which outcome it has (`outcome_id`), a dead letter which outcome it brought about. A redrive claims the
letter while the two are the same: in that transaction the row becomes pending of the next run, so that of two redrives
at once only one finds it so, and a job that has ended otherwise since is left alone.
"""

import asyncio
import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

import orjson

from processors.loops import repeat
from schemas.dead_letter import MAX_INT, DeadLettered, RawHeaders
from schemas.envelope import Envelope
from schemas.events import ms_from_utc
from sinks.pool import Pool
from sinks.postgres import InvalidCursorError

STATEMENT_BYTES = 4_000_000  # of values, in one statement
SWEEP_EVERY_S, SWEEP_BATCH = 600.0, 1_000
# Longer than a publisher waits: a claim of which nothing was heard since may be made again, under the same run.
UNCONFIRMED_AFTER = timedelta(seconds=60)

INSERT = """
INSERT INTO dead_letters (partition, "offset", at, topic, stage, code, reason, attempts, job_id, run, user_id,
                          outcome_id, key, headers, value)
SELECT partition, "offset", at, topic, stage, code, reason, attempts, job_id, run, user_id, outcome_id, key,
       headers::json, value
FROM unnest($1::int[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[],
            $9::uuid[], $10::int[], $11::text[], $12::text[], $13::bytea[], $14::text[], $15::bytea[])
     AS r (partition, "offset", at, topic, stage, code, reason, attempts, job_id, run, user_id, outcome_id, key,
           headers, value)
ON CONFLICT (partition, "offset", at) DO NOTHING
"""

# $1 to $5: a Filter; $6 to $8: the place in the list where it goes on.
MATCHES = """($1::uuid IS NULL OR job_id = $1) AND ($2::text IS NULL OR code = $2) AND ($3::text IS NULL OR stage = $3)
             AND ($4::timestamptz IS NULL OR at >= $4) AND ($5::timestamptz IS NULL OR at < $5)"""
FACTS = """partition, "offset", at, topic, stage, code, reason, attempts, job_id, run, user_id, outcome_id, redriven_at,
           redriven_run"""

BEGIN_RUN = """
UPDATE jobs SET run = $2, status = 'pending', outcome_id = NULL, result = NULL, error = NULL, attempts = NULL,
                timings = NULL, finished_at = NULL, expires_at = $3
WHERE job_id = $1
"""
END_AS_BEFORE = """
UPDATE jobs SET run = $3, status = $4, outcome_id = $5, result = $6, error = $7, attempts = $8, timings = $9,
                finished_at = $10, expires_at = $11
WHERE job_id = $1 AND run = $2 AND status = 'pending'
"""
BEFORE = "run, status, outcome_id, result, error, attempts, timings, finished_at, expires_at"
THIS_ONE = 'partition = $1 AND "offset" = $2 AND at = $3'  # `at`: in a topic that was made anew offsets begin again
CLAIM = f"UPDATE dead_letters SET redriven_at = $4, redriven_run = $5 WHERE {THIS_ONE}"  # noqa: S608 constant
CONFIRM = f"UPDATE dead_letters SET republished = true WHERE {THIS_ONE} AND redriven_run = $4"  # noqa: S608 constant
RELEASE = f"""UPDATE dead_letters SET redriven_at = NULL, redriven_run = NULL
              WHERE {THIS_ONE} AND redriven_run = $4"""  # noqa: S608 constant
DELETE_OLD = """
DELETE FROM dead_letters
WHERE (partition, "offset", at) IN (SELECT partition, "offset", at FROM dead_letters WHERE at < $1 ORDER BY at LIMIT $2)
"""


class DeadLetterSink:
    """`dead-letters` -> a row each, whatever the record holds."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def write(self, envelopes: Sequence[Envelope[Any]]) -> None:
        """As `Sink.write`; in several statements where the values are large, since a repetition changes nothing."""
        for rows in _in_parts([envelope.payload for envelope in envelopes]):
            async with self._pool.connection() as connection:
                await connection.execute(INSERT, *zip(*rows, strict=True))

    async def write_poisoned(self, envelope: Envelope[Any]) -> None:
        """As `PoisonableSink.write_poisoned`."""
        refused: DeadLettered = envelope.payload
        mark = DeadLettered.parse(
            partition=refused.partition, offset=refused.offset, timestamp_ms=ms_from_utc(refused.at), key=None,
            value=None,
            headers=[("dlq-topic", b""), ("dlq-reason", b"the record could not be stored: it is in the topic")],
        )  # fmt: skip
        async with self._pool.connection() as connection:
            await connection.execute(INSERT, *([value] for value in _row(mark)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which dead letters: all that is given must fit; `to` is exclusive."""

    job_id: UUID | None = None
    code: str | None = None
    stage: str | None = None
    since: datetime | None = None
    to: datetime | None = None

    def arguments(self) -> tuple[Any, ...]:
        """As the statements take them."""
        return self.job_id, self.code, self.stage, self.since, self.to


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """A dead letter as it is stored; `key`, `headers`, `value` only where they were asked for."""

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
    redriven_at: datetime | None
    redriven_run: int | None
    key: bytes | None = None
    headers: RawHeaders = ()
    value: bytes | None = None

    @classmethod
    def of(cls, row: Any) -> Self:
        """Read it."""
        fields = dict(row)
        if "headers" in fields:
            fields["headers"] = [
                (name, None if value is None else base64.b64decode(value))
                for name, value in orjson.loads(fields["headers"])
            ]
        return cls(**fields)

    @property
    def cursor(self) -> str:
        """What names its place in the list."""
        place = [self.at.isoformat(), self.partition, self.offset]
        return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that was begun for a dead letter. `before`: the job's row as it was; None: it was begun before."""

    letter: DeadLetterRow
    job_id: UUID
    run: int
    before: tuple[Any, ...] | None


class DeadLetterStore:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def page(self, wanted: Filter, *, limit: int, cursor: str | None) -> tuple[list[DeadLetterRow], str | None]:
        """Newest first: at most `limit`, and the cursor of those after them.

        Raises:
            InvalidCursorError: It is not one of ours.
        """
        place = _place(cursor)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT {FACTS} FROM dead_letters
                    WHERE {MATCHES}
                      AND ($6::timestamptz IS NULL OR (at, partition, "offset") < ($6, $7::int, $8::bigint))
                    ORDER BY at DESC, partition DESC, "offset" DESC LIMIT $9""",  # noqa: S608 constants
                *wanted.arguments(), *place, limit + 1,
            )  # fmt: skip
        letters = [DeadLetterRow.of(row) for row in rows[:limit]]
        return letters, letters[-1].cursor if len(rows) > limit else None

    async def oldest(self, wanted: Filter, *, limit: int, after: str | None) -> list[DeadLetterRow]:
        """Oldest first, with all that is in them, behind the one whose cursor is given.

        Raises:
            InvalidCursorError: It is not one of ours.
        """
        place = _place(after)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT {FACTS}, key, headers, value FROM dead_letters
                    WHERE {MATCHES}
                      AND ($6::timestamptz IS NULL OR (at, partition, "offset") > ($6, $7::int, $8::bigint))
                    ORDER BY at, partition, "offset" LIMIT $9""",  # noqa: S608 constants
                *wanted.arguments(), *place, limit,
            )  # fmt: skip
        return [DeadLetterRow.of(row) for row in rows]

    async def get(self, partition: int, offset: int) -> DeadLetterRow | None:
        """One, with all that is in it; the newest where a topic that was made anew has the offset again."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                f"""SELECT {FACTS}, key, headers, value FROM dead_letters
                    WHERE partition = $1 AND "offset" = $2 ORDER BY at DESC LIMIT 1""",  # noqa: S608 constant
                partition, offset,
            )  # fmt: skip
        return DeadLetterRow.of(row) if row else None

    # --- redriving ---

    async def claim(self, letter: DeadLetterRow, *, expires_at: datetime, now: datetime) -> Claim | str:
        """Begin the run after its own of its job, or say why not.

        The run of a claim of which nobody knows whether it was published is given again after a minute: what is
        published then has the same ids.
        """
        async with self._pool.connection() as connection, connection.transaction():
            job = await connection.fetchrow(
                f"SELECT user_id, {BEFORE} FROM jobs WHERE job_id = $1 AND deleted_at IS NULL FOR UPDATE",  # noqa: S608 constant
                letter.job_id,
            )
            # After the job's lock, and not as it was listed: another redrive may have been here meanwhile.
            known = await connection.fetchrow(
                f"SELECT redriven_at, redriven_run, republished FROM dead_letters WHERE {THIS_ONE}",  # noqa: S608 constant
                *_key(letter),
            )
            if job is None or known is None or letter.job_id is None or letter.run is None:
                return "the job is not stored, or no longer"
            before: tuple[Any, ...] | None = tuple(job)[1:]
            if job["status"] == "pending" and job["run"] == known["redriven_run"]:
                if known["republished"] or now - known["redriven_at"] < UNCONFIRMED_AFTER:
                    return f"it was redriven already: run {job['run']} is under way"
                before = None
            elif (reason := _why_not(letter, job, known)) is not None:
                return reason
            run = letter.run + 1
            await connection.execute(BEGIN_RUN, letter.job_id, run, expires_at)
            await connection.execute(CLAIM, *_key(letter), now, run)
        return Claim(letter, letter.job_id, run, before)

    async def confirm(self, claim: Claim) -> None:
        """It was published."""
        async with self._pool.connection() as connection:
            await connection.execute(CONFIRM, *_key(claim.letter), claim.run)

    async def release(self, claim: Claim) -> None:
        """It was not published, and will not be: the job is as it was before, and may be redriven."""
        if claim.before is None:
            return  # begun by an earlier claim, of which something may still come
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(END_AS_BEFORE, claim.job_id, claim.run, *claim.before)
            await connection.execute(RELEASE, *_key(claim.letter), claim.run)

    # --- leaving ---

    async def delete_older_than(self, at: datetime, *, limit: int = SWEEP_BATCH) -> int:
        """Delete at most so many; how many they were."""
        async with self._pool.connection() as connection:
            done: str = await connection.execute(DELETE_OLD, at, limit)
        return int(done.rpartition(" ")[2])


async def sweep(store: DeadLetterStore, *, kept_ms: int | None) -> None:
    """Until cancelled: delete what is older than the topic keeps it. `kept_ms`: None keeps all."""
    if kept_ms is None:
        return
    kept = timedelta(milliseconds=kept_ms)

    async def delete() -> None:
        while await store.delete_older_than(datetime.now(UTC) - kept) == SWEEP_BATCH:
            await asyncio.sleep(0.1)  # others want the database too

    await repeat(delete, "sweeping dead letters", every_s=SWEEP_EVERY_S)


def _in_parts(letters: Sequence[DeadLettered]) -> Iterator[list[tuple[Any, ...]]]:
    part: list[tuple[Any, ...]] = []
    size = 0
    for letter in letters:
        part.append(_row(letter))
        size += len(letter.value or b"") + len(letter.key or b"")
        if size >= STATEMENT_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _row(letter: DeadLettered) -> tuple[Any, ...]:
    # Type json, not jsonb: a header's name may hold U+0000. Values are any bytes.
    headers = [
        [name, None if value is None else base64.b64encode(value).decode()] for name, value in letter.headers
    ]  # fmt: skip
    return (
        letter.partition, letter.offset, letter.at, letter.topic, letter.stage, letter.code, letter.reason,
        letter.attempts, letter.job_id, letter.run, letter.user_id, letter.outcome_id, letter.key,
        orjson.dumps(headers).decode(), letter.value,
    )  # fmt: skip


def _why_not(letter: DeadLetterRow, job: Any, known: Any) -> str | None:
    """None where the job's outcome is the dead letter's own."""
    if job["user_id"] != letter.user_id:
        return "the job is somebody else's"
    if job["run"] == letter.run and job["outcome_id"] is not None and job["outcome_id"] == letter.outcome_id:
        return None
    if known["redriven_run"] is not None:
        return f"it was redriven already, as run {known['redriven_run']}"
    if job["run"] == letter.run and job["status"] == "pending":
        return "the job's end is not stored yet: try again soon"
    return "the job has ended otherwise since, or runs again"


def _place(cursor: str | None) -> tuple[datetime | None, int | None, int | None]:
    if cursor is None:
        return None, None, None
    try:
        at, partition, offset = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        place = datetime.fromisoformat(at), int(partition), int(offset)
    except (ValueError, TypeError, AttributeError, OverflowError, binascii.Error):
        raise InvalidCursorError from None
    if place[0].tzinfo is None or not 0 <= place[1] <= MAX_INT or not 0 <= place[2] < 2**63:
        raise InvalidCursorError
    return place


def _key(letter: DeadLetterRow) -> tuple[int, int, datetime]:
    return letter.partition, letter.offset, letter.at
