"""What is published for a redrive, and what becomes of a claim when publishing fails."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError
from aiokafka.structs import ConsumerRecord

from ingress.publisher import NotAcceptedError, OutcomeUnknownError, Publisher
from ingress.redrive import AT_ONCE, Redriver
from processors.accept_job import job_id_of
from processors.errors import RetryableError
from processors.stage import DeadLetter
from schemas.dead_letter import LEFT_OUT
from schemas.envelope import Attributes, Record
from schemas.events import CompletionRequested, Event, Job, PromptSanitized
from schemas.ids import JobIds
from schemas.redrive import MAC_HEADER, RUN_HEADER, RedriveMarks
from schemas.topics import Catalog
from sinks.dead_letters import Claim, DeadLetterRow, DeadLetterStore, Filter
from sinks.postgres import InvalidCursorError
from streams.encode import Encoder
from tests.factories import ACCEPTED_AT, NOW, chat_request, completion_requested, job, job_requested, prompt_sanitized

SECRET = "s" * 40
JOB_IDS, MARKS, CATALOG = JobIds([SECRET]), RedriveMarks([SECRET]), Catalog.load(prefix="p.")
COMPLETION = "p.completion-requested-openai"


class FakeLetters:
    """A store that gives every claim; `fails`: raised by the method of that name."""

    def __init__(self, *letters: DeadLetterRow) -> None:
        self.letters = list(letters)
        self.fails: dict[str, Exception] = {}
        self.claims: list[tuple[int, datetime]] = []
        self.confirmed: list[int] = []
        self.released: list[int] = []
        self.wanted: list[Filter] = []

    async def oldest(self, wanted: Filter, *, limit: int, after: str | None) -> list[DeadLetterRow]:
        self.wanted.append(wanted)
        self._fail("oldest")
        cursors = [letter.cursor for letter in self.letters]
        first = cursors.index(after) + 1 if after else 0
        return self.letters[first : first + limit]

    async def claim(self, letter: DeadLetterRow, *, expires_at: datetime, now: datetime) -> Claim | str:
        self._fail("claim")
        assert letter.job_id is not None
        self.claims.append((letter.offset, expires_at))
        return Claim(letter, letter.job_id, (letter.run or 0) + 1, ())

    async def confirm(self, claim: Claim) -> None:
        self._fail("confirm")
        self.confirmed.append(claim.letter.offset)

    async def release(self, claim: Claim) -> None:
        self._fail("release")
        self.released.append(claim.letter.offset)

    def _fail(self, method: str) -> None:
        if method in self.fails:
            raise self.fails[method]


class FakePublisher:
    """Keeps what is published, or raises what `answer` says of the n-th record."""

    def __init__(self, answer: Callable[[int], Exception | None] = lambda n: None) -> None:
        self.records: list[Record] = []
        self._answer = answer
        self.problem: NotAcceptedError | None = None

    def check(self) -> None:
        if self.problem:
            raise self.problem

    async def publish(self, record: Record) -> None:
        self.records.append(record)
        if (error := self._answer(len(self.records))) is not None:
            raise error


def redriver(letters: FakeLetters, publisher: FakePublisher | None = None) -> Redriver:
    return Redriver(
        cast(DeadLetterStore, letters), cast(Publisher, publisher or FakePublisher()), CATALOG, JOB_IDS, MARKS,
        providers=("openai", "local"), expires_after_s=3600,
    )  # fmt: skip


def row(
    event: bytes | Event, *, of: Job | None = None, topic: str = COMPLETION, offset: int = 0, extra: Any = (),
    **more: Any,
) -> DeadLetterRow:  # fmt: skip
    """As a stage would have written it and the sink stored it."""
    raw = event if isinstance(event, bytes) else event.model_dump_json(exclude_none=True).encode()
    headers = [*Attributes("e-1", "/assistant/s", "t", caused_by="e-0").headers(), *extra]
    record = ConsumerRecord(topic, 0, 0, 0, 0, b"key", raw, None, 1, 1, headers)
    letter = Encoder(CATALOG).dead_letter(record, DeadLetter("c", "r"), stage="s", outcome_id="o", at=NOW, job=of)
    fields: dict[str, Any] = {
        "partition": 0, "offset": offset, "at": NOW, "topic": topic, "stage": "s", "code": "c", "reason": "r",
        "attempts": 1, "job_id": of.job_id if of else None, "run": of.run if of else None,
        "user_id": of.user_id if of else None, "outcome_id": "o", "redriven_at": None, "redriven_run": None,
        "key": b"key", "headers": letter.headers, "value": raw,
    }  # fmt: skip
    return DeadLetterRow(**fields | more)


def failed(offset: int = 0, **more: Any) -> DeadLetterRow:
    event = completion_requested()
    return row(event, of=event.job, offset=offset, **more)


async def published(letter: DeadLetterRow) -> tuple[Record, datetime]:
    letters, publisher = FakeLetters(letter), FakePublisher()
    report = await redriver(letters, publisher).redrive(Filter())
    assert [done.run for done in report.redriven] == [(letter.run or 0) + 1], report.skipped
    (record,) = publisher.records
    return record, letters.claims[0][1]


async def reason(letter: DeadLetterRow) -> str:
    publisher = FakePublisher()
    report = await redriver(FakeLetters(letter), publisher).redrive(Filter())
    assert publisher.records == []
    (skipped,) = report.skipped
    return skipped.reason


async def test_what_was_too_large_to_be_kept_is_not_made_up() -> None:
    letter = failed()
    assert "too large" in await reason(replace(letter, headers=[*letter.headers, (LEFT_OUT, b"9")], value=b""))


async def test_an_event_is_the_same_but_for_run_id_and_expiry() -> None:
    event = completion_requested(job=job(run=4), request=chat_request("Привет"))
    value = json.loads(event.model_dump_json(exclude_none=True)) | {"of_a_newer_version": [1.5, None]}
    before = datetime.now(UTC)
    record, expires_at = await published(row(json.dumps(value).encode(), of=event.job, extra=[("mine", b"\xff")]))
    again = CompletionRequested.model_validate_json(record.value or b"")
    assert again.job.run == 5
    assert again.job.accepted_at == ACCEPTED_AT
    assert again.job.expires_at == expires_at
    assert timedelta() <= expires_at - before - timedelta(hours=1) < timedelta(seconds=30)
    same = {"job": {"run": 4, "expires_at": event.job.expires_at}}
    assert again.model_copy(update={"job": again.job.model_copy(update=same["job"])}) == event
    assert json.loads(record.value or b"")["of_a_newer_version"] == [1.5, None]
    assert (record.topic, record.key) == (COMPLETION, b"key")
    headers = dict(record.headers)
    assert headers.keys() == {name for name, _ in Attributes("1", "2", "3", caused_by="4").headers()} | {"mine"}
    assert headers["mine"] == b"\xff"
    assert headers["ce_id"] not in (b"e-1", b"")
    assert headers["ce_causationid"] == b"e-0"


async def test_an_event_that_came_from_another_provider_has_all_of_its_time_again() -> None:
    event = completion_requested(request=chat_request(provider=("gemini", "openai")), left_s=0.5)
    record, _ = await published(row(event, of=event.job))
    again = CompletionRequested.model_validate_json(record.value or b"")
    assert (again.left_s, again.work_s) == (None, event.timeout_s)


async def test_the_same_redrive_made_twice_has_the_same_id_and_the_next_run_another() -> None:
    event = completion_requested()
    ids = [
        dict((await published(row(event, of=event.job, run=run)))[0].headers)["ce_id"] for run in (1, 1, 2)
    ]  # fmt: skip
    assert ids[0] == ids[1] != ids[2]


async def test_a_job_that_was_redriven_late_is_good_for_a_day_at_most() -> None:
    event = completion_requested(job=job(expires_at=ACCEPTED_AT + timedelta(days=9)))
    _, expires_at = await published(row(event, of=event.job))
    assert expires_at - datetime.now(UTC) <= timedelta(days=1)


async def test_before_the_limiter_an_event_is_a_new_one_with_a_time_of_its_own() -> None:
    event = prompt_sanitized()
    record, _ = await published(row(event, of=event.job, topic="p.prompt-sanitized"))
    again = PromptSanitized.model_validate_json(record.value or b"")
    assert datetime.now(UTC) - again.job.accepted_at < timedelta(seconds=30)
    assert again.job.expires_at - again.job.accepted_at == timedelta(hours=1)


@pytest.mark.parametrize(("expires_after", "seconds"), [(None, 3600), (30, 30), (10**9, 86_400)])
async def test_at_the_entry_the_clients_record_is_untouched_and_marked(expires_after: int | None, seconds: int) -> None:
    value = job_requested().model_dump(mode="json") | {"expires_after": expires_after}
    raw = json.dumps(value, indent=3).encode()
    job_id = job_id_of("alice", Attributes("e-1", "/assistant/s", "t"), JOB_IDS)
    old = MARKS.headers(job_id, 2)
    record, expires_at = await published(row(raw, of=job(job_id=job_id, run=2), topic="p.job-requested", extra=old))
    assert record.value == raw
    assert dict(record.headers)["ce_id"] == b"e-1"
    assert [name for name, _ in record.headers].count(RUN_HEADER) == 1
    assert [name for name, _ in record.headers].count(MAC_HEADER) == 1
    assert MARKS.run(record.headers, job_id) == 3
    assert abs(expires_at - datetime.now(UTC) - timedelta(seconds=seconds)) < timedelta(seconds=30)


async def test_a_job_whose_id_is_no_longer_known_as_ours_is_skipped() -> None:
    """After both secrets were replaced the gate would make another job of it."""
    minted = JobIds(["another secret of long ago, thirty-two"]).mint("alice")
    letter = row(job_requested(), of=job(job_id=minted), topic="p.job-requested")
    letter = row(job_requested(), of=job(job_id=minted), topic="p.job-requested", headers=[
        *Attributes(str(minted), "/ingress", "t").headers(), *letter.headers[-9:]
    ])  # fmt: skip
    assert "JWT secret" in await reason(letter)


@pytest.mark.parametrize(
    ("letter", "told"),
    [
        (failed(topic="p.user-updated"), "no stage reads"),
        (failed(topic="p.job-finished"), "no stage reads"),
        (failed(topic="p.dead-letters"), "no stage reads"),
        (failed(topic="completion-requested-openai"), "no stage reads"),  # another deployment's
        (failed(topic="p.completion-requested-gone"), "no stage reads"),
        (failed(topic=""), "no stage reads"),
        (failed(outcome_id=None), "no event of a job"),
        (failed(job_id=None), "no event of a job"),
        (failed(run=None), "no event of a job"),
        (failed(run=1_000_000), "too often"),
        (failed(job_id=uuid4()), "another job"),
        (failed(user_id="mallory"), "another job"),
        (failed(headers=[]), "cannot be read"),
        (failed(value=b""), "cannot be read"),
        (failed(value=None), "cannot be read"),
        (failed(value=b"[" * 100_000), "cannot be read"),
        (failed(value=b'{"job": 7}'), "cannot be read"),
        (failed(value=b'{"job": {"job_id": "x", "user_id": "alice"}}'), "cannot be read"),
    ],
)
async def test_what_is_no_stages_event_of_that_job_is_skipped(letter: DeadLetterRow, told: str) -> None:
    assert told in await reason(letter)


async def test_times_beyond_the_calendar_are_skipped() -> None:
    event = completion_requested()
    value = json.loads(event.model_dump_json())
    value["job"] |= {"expires_at": "0001-01-01T00:00:00+00:00", "accepted_at": "9999-12-31T00:00:00+00:00"}
    assert "cannot be read" in await reason(row(json.dumps(value).encode(), of=event.job))


async def test_a_claim_is_given_back_when_nothing_was_handed_over_and_the_call_ends() -> None:
    letters = FakeLetters(*(failed(n) for n in range(AT_ONCE + 5)))
    publisher = FakePublisher(lambda n: NotAcceptedError("Kafka does not answer") if n == 2 else None)
    report = await redriver(letters, publisher).redrive(Filter())
    assert (len(report.redriven), len(report.skipped)) == (AT_ONCE - 1, 1)
    assert "try again" in report.skipped[0].reason
    assert letters.released == [report.skipped[0].letter.offset]
    assert report.next is not None
    letters.fails["release"] = RetryableError("postgres-unavailable", "away")
    report = await redriver(letters, FakePublisher(lambda n: NotAcceptedError("away"))).redrive(Filter())
    assert "in a minute" in report.skipped[0].reason


async def test_a_record_that_is_too_large_now_is_given_back_and_the_rest_goes_on() -> None:
    def too_large(n: int) -> Exception | None:
        error = OutcomeUnknownError()
        error.__cause__ = MessageSizeTooLargeError()
        return error if n == 1 else None

    letters = FakeLetters(failed(0), failed(1))
    report = await redriver(letters, FakePublisher(too_large)).redrive(Filter())
    assert letters.released == [0]
    assert "larger" in report.skipped[0].reason
    assert [done.letter.offset for done in report.redriven] == [1]


@pytest.mark.parametrize("cause", [None, KafkaTimeoutError()])
async def test_a_claim_stands_when_it_may_have_been_published(cause: Exception | None) -> None:
    error = OutcomeUnknownError()
    error.__cause__ = cause
    letters = FakeLetters(failed())
    report = await redriver(letters, FakePublisher(lambda n: error)).redrive(Filter())
    assert (report.redriven, letters.released, letters.confirmed) == ([], [], [])
    assert "may have been published" in report.skipped[0].reason


async def test_kafka_away_is_said_before_anything_is_claimed() -> None:
    letters, publisher = FakeLetters(failed()), FakePublisher()
    publisher.problem = NotAcceptedError("Kafka is not connected yet")
    with pytest.raises(NotAcceptedError):
        await redriver(letters, publisher).redrive(Filter())
    assert letters.claims == []


async def test_postgres_away_is_an_error_at_first_and_later_ends_the_call_with_what_was_done() -> None:
    away = RetryableError("postgres-unavailable", "Postgres does not answer")
    letters = FakeLetters(*(failed(n) for n in range(AT_ONCE + 5)))
    letters.fails["oldest"] = away
    with pytest.raises(RetryableError):
        await redriver(letters).redrive(Filter())
    del letters.fails["oldest"]

    def fail_from_now_on(n: int) -> None:
        letters.fails["oldest"] = away

    report = await redriver(letters, FakePublisher(fail_from_now_on)).redrive(Filter())
    assert len(report.redriven) == AT_ONCE
    assert report.next is not None
    letters.fails = {"confirm": away}
    assert len((await redriver(letters).redrive(Filter())).redriven) == AT_ONCE + 5  # published is published


async def test_a_call_does_so_many_and_its_cursor_goes_on_up_to_the_time_of_the_first() -> None:
    letters = FakeLetters(*(failed(n) for n in range(95)))
    found = redriver(letters)
    seen: list[int] = []
    cursor: str | None = None
    while True:
        report = await found.redrive(Filter(code="c"), limit=30, cursor=cursor)
        assert len(report.redriven) <= 30
        seen += [done.letter.offset for done in report.redriven]
        cursor = report.next
        if cursor is None:
            break
    assert seen == list(range(95))
    assert len({wanted.to for wanted in letters.wanted}) == 1  # what fails again meanwhile is not among them
    assert {wanted.code for wanted in letters.wanted} == {"c"}


@pytest.mark.parametrize("cursor", ["x", "x~", "~x", f"x~{NOW.replace(tzinfo=None).isoformat()}"])
async def test_a_cursor_that_is_not_ours_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursorError):
        await redriver(FakeLetters()).redrive(Filter(to=NOW), cursor=cursor)
