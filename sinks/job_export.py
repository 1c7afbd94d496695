"""Jobs in Postgres, read from one end to the other: in pages by key, each bounded in rows and in bytes.

A page is one statement, so between two of them no connection is held, whoever reads them how slowly.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from processors.errors import PermanentError
from sinks.pool import Pool
from sinks.postgres import COLUMNS, JobRow

FIRST_ROWS, MAX_ROWS = 64, 1024  # looked at for a page
PAGE_BYTES = 256 * 1024  # of JSON, as Postgres has it; one job that has more is a page of its own
BEGINNING, END = datetime(1970, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)

# The rows that are looked at are the next ones by key, whether they fit or not: so a filter that nearly nothing fits
# takes more pages instead of a statement without an end. How large they are is asked only of those that fit.
PAGE = """
WITH looked_at AS MATERIALIZED (
    SELECT {columns},
           deleted_at IS NULL AND ($5::text IS NULL OR status = $5)
           AND ($6::text IS NULL OR $6 = coalesce(result->'meta'->>'provider', attempts->-1->>'provider')) AS fits
    FROM jobs
    WHERE {whose} AND (accepted_at, job_id) > ($2::timestamptz, $3::uuid) AND accepted_at < $4::timestamptz
    ORDER BY accepted_at, job_id LIMIT $7
), sized AS (
    SELECT job_id,
           octet_length(concat(result::text, error::text, attempts::text, timings::text, metadata::text)) AS size
    FROM looked_at WHERE fits
), summed AS (
    SELECT l.*, sum(size) OVER (ORDER BY accepted_at, l.job_id) - size AS before
    FROM looked_at l JOIN sized s ON s.job_id = l.job_id
), ending AS (
    SELECT accepted_at AS last_at, job_id AS last_id, (SELECT count(*) FROM looked_at) AS looked_at,
           (SELECT count(*) FROM sized) AS fitting
    FROM looked_at ORDER BY accepted_at DESC, job_id DESC LIMIT 1
)
SELECT ending.*, taken.* FROM ending LEFT JOIN (SELECT {columns} FROM summed WHERE before < $8) AS taken ON true
ORDER BY accepted_at, job_id
"""
OF_A_USER = PAGE.format(columns=COLUMNS, whose="user_id = $1")
OF_EVERYBODY = PAGE.format(columns=COLUMNS, whose="$1::text IS NULL")
OWN = tuple(name.strip() for name in COLUMNS.split(","))


class InvalidPlaceError(PermanentError):
    """It is not what `Place.parse` takes."""

    def __init__(self) -> None:
        super().__init__(
            "invalid-cursor", "the cursor is accepted_at and job_id of the last job, with a / between them"
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Behind a job, in the order of an export; clients make it from any line that they have."""

    at: datetime
    job_id: UUID

    @classmethod
    def parse(cls, text: str) -> Self:
        """`accepted_at/job_id`, as they are in an exported job.

        Raises:
            InvalidPlaceError: It is something else.
        """
        at, slash, job_id = text.rpartition("/")
        try:
            # A + of a time zone that was not escaped in an address arrives as a blank.
            place = cls(datetime.fromisoformat(at.replace(" ", "+")).astimezone(UTC), UUID(job_id))
        except (ValueError, OverflowError):
            raise InvalidPlaceError from None
        if not slash or not BEGINNING <= place.at < END:
            raise InvalidPlaceError
        return place


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs; all that is given must fit.

    Attributes:
        user_id: Whose; None: everybody's.
        begin: Accepted then or later.
        end: Accepted before.
        provider: That has answered, else the one that was asked last.
        status: As polled.
        after: Only those behind that place.
    """

    user_id: str | None
    begin: datetime = BEGINNING
    end: datetime = END
    provider: str | None = None
    status: str | None = None
    after: Place | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some of them, the oldest first; `following`: how to ask for those after them, None where there are none."""

    jobs: list[JobRow]
    following: "Position | None"


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next page begins, and how many rows are looked at for it."""

    after: Place
    rows: int = FIRST_ROWS


class JobExport:
    """Raises RetryableError while Postgres is away; the same page may then be asked for again."""

    def __init__(self, pool: Pool, *, page_bytes: int = PAGE_BYTES) -> None:
        self._pool, self._page_bytes = pool, page_bytes

    @staticmethod
    def start(wanted: Wanted) -> Position:
        """The first page's."""
        first = Place(wanted.begin, UUID(int=0))
        if wanted.after is not None and wanted.after.at >= wanted.begin:
            first = wanted.after
        return Position(first)

    async def page(self, wanted: Wanted, position: Position) -> Page:
        """One page."""
        statement = OF_EVERYBODY if wanted.user_id is None else OF_A_USER
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                statement, wanted.user_id, position.after.at, position.after.job_id, wanted.end, wanted.status,
                wanted.provider, position.rows, self._page_bytes,
            )  # fmt: skip
        if not rows:
            return Page([], None)
        jobs = [JobRow(**{name: row[name] for name in OWN}) for row in rows if row["job_id"] is not None]
        looked_at, is_cut = rows[0]["looked_at"], len(jobs) < rows[0]["fitting"]
        if is_cut:  # twice as many as there was room for: what is read and thrown away stays in proportion
            limit = min(MAX_ROWS, max(1, 2 * len(jobs)))
            return Page(jobs, Position(Place(jobs[-1].accepted_at, jobs[-1].job_id), limit))
        if looked_at < position.rows:
            return Page(jobs, None)
        after = Place(rows[0]["last_at"], rows[0]["last_id"])
        return Page(jobs, replace(position, after=after, rows=min(MAX_ROWS, 2 * position.rows)))
