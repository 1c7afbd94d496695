"""Redriving: a dead letter's record goes again to the topic where it failed, as the next run of its job.

Nothing in it changes but the run, the id (derived, so that the same redrive made twice is recognised) and the times:
`expires_at` is as far from now as it was from `accepted_at`, at most a day, since the job would end `expired` at once.
At the public entry the value is the client's own and the id names the job: there the run rides in headers under a MAC.

The rate limiter sees a redrive from `job-requested` or `prompt-sanitized` as a new event (and so with a new
`accepted_at`, which is the time that it counts by); from `job-admitted` on, its first admission still holds.
"""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from aiokafka.errors import MessageSizeTooLargeError

from ingress.publisher import NotAcceptedError, OutcomeUnknownError, Publisher
from processors.accept_job import job_id_of
from processors.errors import RetryableError
from schemas.dead_letter import LEFT_OUT, original_headers
from schemas.envelope import Attributes, Headers, InvalidEnvelopeError, Record
from schemas.events import JobEvent, JobFinished
from schemas.ids import JobIds, derived_event_id
from schemas.redrive import MAC_HEADER, MAX_RUN, RUN_HEADER, RedriveMarks
from schemas.topics import Catalog
from sinks.dead_letters import Claim, DeadLetterRow, DeadLetterStore, Filter
from sinks.postgres import InvalidCursorError

ENTRY, BEFORE_THE_LIMITER = "job-requested", "prompt-sanitized"
MAX_PER_CALL = 1_000
AT_ONCE = 20  # up to 2 MiB each
LONGEST_EXPIRY_S = 86_400.0


class NotRedrivableError(Exception):
    """This dead letter cannot be redriven; the message says why."""


@dataclass(frozen=True, slots=True)
class Redriven:
    """It was published again."""

    letter: DeadLetterRow
    run: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """It was left alone. `is_outage`: the next one would be, too."""

    letter: DeadLetterRow
    reason: str
    is_outage: bool = False


@dataclass(slots=True)
class Report:
    """What a call did. `next`: the cursor for what it did not come to."""

    redriven: list[Redriven] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    next: str | None = None


class Redriver:
    """Oldest first; each dead letter by itself, so that one that cannot go holds up no other."""

    def __init__(
        self, letters: DeadLetterStore, publisher: Publisher, catalog: Catalog, job_ids: JobIds, marks: RedriveMarks,
        *, providers: Sequence[str], expires_after_s: float,
    ) -> None:  # fmt: skip
        """`providers`: those that have topics; `expires_after_s`: of a request that does not say it."""
        self._letters, self._publisher, self._job_ids, self._marks = letters, publisher, job_ids, marks
        self._expires_after_s = expires_after_s
        # Only what a stage reads: a forged dead letter must not make us publish, say, a user.
        self._topics = {
            full_name: topic.name
            for full_name, topic in catalog.deployed(providers).items()
            if topic.name == ENTRY or _is_input_of_a_stage(topic.event_class())
        }

    async def redrive(self, wanted: Filter, *, limit: int = MAX_PER_CALL, cursor: str | None = None) -> Report:
        """Redrive at most `limit` that fit and are there now: those that fail again meanwhile are not among them.

        Raises:
            NotAcceptedError: Kafka does not answer; nothing was done.
            RetryableError: Postgres does not; nothing was done.
            InvalidCursorError: It is not one of ours.
        """
        self._publisher.check()
        after, wanted = _bounded(wanted, cursor)
        report = Report()
        for done in range(0, limit, AT_ONCE):
            size = min(AT_ONCE, limit - done)
            try:
                letters = await self._letters.oldest(wanted, limit=size, after=after)
            except RetryableError:
                if done == 0:
                    raise
                break
            results = await asyncio.gather(*(self._one(letter) for letter in letters))
            report.redriven += [result for result in results if isinstance(result, Redriven)]
            report.skipped += [result for result in results if isinstance(result, Skipped)]
            if len(letters) < size:
                return report
            after = letters[-1].cursor
            if any(isinstance(result, Skipped) and result.is_outage for result in results):
                break
        report.next = _cursor(after, wanted)
        return report

    async def _one(self, letter: DeadLetterRow) -> Redriven | Skipped:
        now = datetime.now(UTC)
        try:
            record, expires_at = self._again(letter, now)
            claim = await self._letters.claim(letter, expires_at=expires_at, now=now)
        except NotRedrivableError as error:
            return Skipped(letter, str(error))
        except RetryableError as error:
            return Skipped(letter, f"{error.message}: try again", is_outage=True)
        if isinstance(claim, str):
            return Skipped(letter, claim)
        try:
            await self._publisher.publish(record)
        except NotAcceptedError as error:
            return await self._given_back(claim, f"{error}: try again", is_outage=True)
        except OutcomeUnknownError as error:
            if isinstance(error.__cause__, MessageSizeTooLargeError):
                return await self._given_back(claim, "with its next run in it, it is larger than its topic takes")
            reason = "Kafka has not answered, so it may have been published: if its job stays pending, try again"
            return Skipped(letter, f"{reason} in a minute", is_outage=True)
        with contextlib.suppress(RetryableError):  # it was published, and the job's outcome will tell so
            await self._letters.confirm(claim)
        return Redriven(letter, claim.run)

    async def _given_back(self, claim: Claim, reason: str, *, is_outage: bool = False) -> Skipped:
        try:
            await self._letters.release(claim)
        except RetryableError:
            reason = f"{reason}, in a minute"  # the claim stands until then
        return Skipped(claim.letter, reason, is_outage=is_outage)

    # --- the record of the next run ---

    def _again(self, letter: DeadLetterRow, now: datetime) -> tuple[Record, datetime]:
        """The record to publish, and when the job then expires.

        Raises:
            NotRedrivableError: There is none.
        """
        topic = self._topics.get(letter.topic)
        if topic is None:
            raise NotRedrivableError("no stage reads the topic that it failed at")
        if letter.job_id is None or letter.run is None or letter.outcome_id is None:
            raise NotRedrivableError("it is no event of a job that has ended by it")
        if any(name == LEFT_OUT for name, _ in letter.headers[len(original_headers(letter.headers)) :]):
            raise NotRedrivableError("its record was too large to be kept: ask anew")
        if letter.run >= MAX_RUN:
            raise NotRedrivableError("the job has been run too often")
        try:
            attributes = Attributes.parse(original_headers(letter.headers))
            value = json.loads(letter.value or b"")
            if topic == ENTRY:
                return self._entry_again(letter, letter.job_id, letter.run + 1, attributes, value, now)
            return self._event_again(letter, letter.job_id, letter.run + 1, attributes, value, now, topic)
        except (InvalidEnvelopeError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
                RecursionError):  # fmt: skip
            raise NotRedrivableError("its record cannot be read") from None

    def _entry_again(
        self, letter: DeadLetterRow, job_id: UUID, run: int, attributes: Attributes, value: Any, now: datetime
    ) -> tuple[Record, datetime]:
        if job_id_of(value["user_id"], attributes, self._job_ids) != job_id:
            raise NotRedrivableError("its job's id was made under a JWT secret that is honoured no longer")
        expires_after = value.get("expires_after")
        seconds = float(expires_after) if isinstance(expires_after, int | float) else self._expires_after_s
        headers: Headers = [
            *((name, raw) for name, raw in original_headers(letter.headers) if name not in (RUN_HEADER, MAC_HEADER)),
            *self._marks.headers(job_id, run),
        ]  # fmt: skip
        record = Record(letter.topic, letter.key or b"", letter.value or b"", headers)
        return record, now + timedelta(seconds=min(max(seconds, 1.0), LONGEST_EXPIRY_S))

    @staticmethod
    def _event_again(
        letter: DeadLetterRow, job_id: UUID, run: int, attributes: Attributes, value: Any, now: datetime, topic: str
    ) -> tuple[Record, datetime]:
        job = value["job"]
        if UUID(job["job_id"]) != job_id or job["user_id"] != letter.user_id:
            raise NotRedrivableError("its record is about another job than its headers say")
        good_for = datetime.fromisoformat(job["expires_at"]) - datetime.fromisoformat(job["accepted_at"])
        expires_at = now + min(good_for, timedelta(seconds=LONGEST_EXPIRY_S))
        job |= {"run": run, "expires_at": expires_at.isoformat()}
        value.pop("left_s", None)  # it has all of its time again, and not what other providers had left
        if topic == BEFORE_THE_LIMITER:
            job["accepted_at"] = now.isoformat()
        event_id = derived_event_id(job_id, cause=attributes.event_id, stage="redrive", run=run, index=0)
        headers: Headers = [
            (name, event_id.encode() if name == "ce_id" else raw) for name, raw in original_headers(letter.headers)
        ]
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        return Record(letter.topic, letter.key or b"", body, headers), expires_at


def _is_input_of_a_stage(event: type | None) -> bool:
    return event is not None and issubclass(event, JobEvent) and event is not JobFinished


def _bounded(wanted: Filter, cursor: str | None) -> tuple[str | None, Filter]:
    """Where to go on, and the filter up to the time of the first call."""
    now = datetime.now(UTC)
    after, _, until = (cursor or "").partition("~")
    try:
        bound = datetime.fromisoformat(until) if cursor else now
        to = min(bound, wanted.to or bound)
    except (ValueError, TypeError):
        raise InvalidCursorError from None
    return after or None, Filter(
        job_id=wanted.job_id, code=wanted.code, stage=wanted.stage, since=wanted.since, to=to
    )  # fmt: skip


def _cursor(after: str | None, wanted: Filter) -> str | None:
    return f"{after}~{wanted.to.isoformat()}" if after and wanted.to else None
