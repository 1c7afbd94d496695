"""Examples to learn from, in Postgres. Every statement on them lives here.

One is written once: what a user has already, by its content, is not written again, and neither is one whose event is
delivered again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from processors.errors import PermanentError
from processors.learning.adapter_ports import UsedExamples
from processors.learning.training_ports import TrainingExample
from processors.store_example import KeptExample, content_hash
from schemas.events import Job
from schemas.requests import ExampleRequest
from sinks.pool import Pool

INSERT = """
INSERT INTO examples (example_id, user_id, job_id, content_hash, instruction, input, output)
SELECT $1::uuid, $2::text, $3::uuid, $4::bytea, $5::text, $6::text, $7::text
WHERE (SELECT count(*) FROM examples WHERE user_id = $2) < $8::int
ON CONFLICT (user_id, content_hash) DO NOTHING
"""
FIND = "SELECT example_id, job_id FROM examples WHERE user_id = $1 AND content_hash = $2"
HOLDS = "($2::text IS NULL OR strpos(lower(concat_ws(chr(10), instruction, input, output)), lower($2)) > 0)"
PAGE = f"""
SELECT number, example_id, instruction, input, output, created_at FROM examples
WHERE user_id = $1 AND {HOLDS}
  AND ($3::bigint IS NULL OR number < $3)
ORDER BY number DESC LIMIT $4
"""  # noqa: S608 of constants
OLDEST = f"""
SELECT number, example_id, instruction, input, output, created_at FROM examples
WHERE user_id = $1 AND {HOLDS}
  AND number > $3
ORDER BY number LIMIT $4
"""  # noqa: S608 of constants

# The newest ones, until there are so many or so many characters of them.
LESSONS = """
SELECT instruction, input, output, number FROM (
    SELECT instruction, input, output, number,
           sum(length(instruction) + length(input) + length(output)) OVER (ORDER BY number DESC) AS chars
    FROM (SELECT * FROM examples WHERE user_id = $1 ORDER BY number DESC LIMIT $2) AS newest
) AS counted WHERE chars <= $3 ORDER BY number
"""
MAX_LESSON_CHARS = 2_000_000


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """One, as it is stored; `number` rises with each that is."""

    number: int
    example_id: UUID
    instruction: str
    input: str
    output: str
    created_at: datetime

    def view(self) -> dict[str, Any]:
        """As its user sees it."""
        return {"example_id": str(self.example_id), **self.lesson(), "created_at": self.created_at}

    def lesson(self) -> dict[str, str]:
        """What is learnt from it."""
        return {"instruction": self.instruction, "input": self.input, "output": self.output}


class ExampleStore:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool, *, max_per_user: int = 10_000, max_lessons: int = 1_000) -> None:
        """`max_per_user`: as many as a user may have; counted before, so that several at once may get over it.

        `max_lessons`: as many as a training takes.
        """
        self._pool, self._max, self._max_lessons = pool, max_per_user, max_lessons

    async def add(self, job: Job, example_id: UUID, example: ExampleRequest) -> KeptExample:
        """See `processors.store_example.ExampleStore.add`."""
        key = content_hash(example)
        async with self._pool.connection() as connection:
            await connection.execute(
                INSERT, example_id, job.user_id, job.job_id, key, example.instruction, example.input, example.output,
                self._max,
            )  # fmt: skip
            row = await connection.fetchrow(FIND, job.user_id, key)
        if row is None:
            raise PermanentError("too-many-examples", f"at most {self._max} examples of yours are kept: delete some")
        return KeptExample(row["example_id"], is_new=row["job_id"] == job.job_id)

    async def page(
        self, user_id: str, *, text: str | None, before: int | None, limit: int
    ) -> tuple[Sequence[ExampleRow], int | None]:
        """The newest ones that hold the text, and where the page after begins."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(PAGE, user_id, text, before, limit + 1)
        found = [ExampleRow(**row) for row in rows[:limit]]
        return found, found[-1].number if len(rows) > limit else None

    async def oldest(self, user_id: str, *, text: str | None, after: int, limit: int) -> Sequence[ExampleRow]:
        """So many of them in the order in which they came."""
        async with self._pool.connection() as connection:
            return [ExampleRow(**row) for row in await connection.fetch(OLDEST, user_id, text, after, limit)]

    async def lessons(self, user_id: str) -> UsedExamples:
        """See `processors.learning.adapter_ports.ExampleReader.lessons`."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(LESSONS, user_id, self._max_lessons, MAX_LESSON_CHARS)
        total = await self.count(user_id)
        return UsedExamples(
            [TrainingExample(instruction=row[0], input=row[1], output=row[2]) for row in rows], max(total, len(rows))
        )

    async def count(self, user_id: str) -> int:
        """How many the user has."""
        async with self._pool.connection() as connection:
            found: int = await connection.fetchval("SELECT count(*) FROM examples WHERE user_id = $1", user_id)
        return found

    async def delete(self, example_id: UUID, *, user_id: str) -> bool:
        """True if the user had it."""
        async with self._pool.connection() as connection:
            done: str = await connection.execute(
                "DELETE FROM examples WHERE example_id = $1 AND user_id = $2", example_id, user_id
            )
        return done != "DELETE 0"
