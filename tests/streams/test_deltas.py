"""What is told of an answer while it comes: batched, in order, without gaps, and only what is worth a record."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from aiokafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError

from schemas.envelope import Attributes, Record
from schemas.events import CompletionStreamed, StreamedRange
from schemas.ids import uuid7
from streams import deltas
from streams.deltas import MAX_PIECE_CHARS, MOMENT_S, DeltaExecution, DeltaTopic, Moments
from tests.factories import job
from tests.waiting import until

WINDOW_S = 0.03
EXECUTION = UUID("019b7ca9-8d60-7a3c-9d0e-5f6b1c2a3d4e")
JOB = job()


class FakeBrokers:
    """Takes records, answers each at offset 10, 20, ...; `errors` are raised first, `answering` holds answers back."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.records, self.times = list(errors), list[Record](), list[float]()
        self.answering = asyncio.Event()
        self.answering.set()
        self.unanswered = self.max_unanswered = 0

    async def offer(self, record: Record) -> "asyncio.Future[Any]":
        self.times.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        self.records.append(record)
        return asyncio.ensure_future(self._answer(len(self.records) * 10))

    async def _answer(self, offset: int) -> Any:
        self.unanswered += 1
        self.max_unanswered = max(self.max_unanswered, self.unanswered)
        await self.answering.wait()
        self.unanswered -= 1
        return SimpleNamespace(partition=3, offset=offset)

    @property
    def events(self) -> list[CompletionStreamed]:
        return [CompletionStreamed.model_validate_json(record.value or b"") for record in self.records]


def execution(brokers: FakeBrokers, **options: Any) -> DeltaExecution:
    given = {"first_within_s": 0.0, "window_s": WINDOW_S, "end_within_s": 0.5} | options
    max_chars = given.pop("max_chars", 1000)
    topic = DeltaTopic(brokers.offer, "p.completion-streamed", new_id=lambda: EXECUTION, **given)
    return topic.execution(JOB, max_chars=max_chars)


async def paced(tell: Callable[[str], Awaitable[None]], pieces: list[str], pause_s: float) -> str:
    for piece in pieces:
        await tell(piece)
        await asyncio.sleep(pause_s)
    return "".join(pieces)


async def test_pieces_are_batched_and_numbered_without_gaps_and_the_last_is_final() -> None:
    brokers = FakeBrokers()
    with execution(brokers) as told:
        text = await paced(told.tell, [f"w{n} " for n in range(60)], WINDOW_S / 12)
        where = await told.end(text)
    events = brokers.events
    assert "".join(event.text for event in events) == text
    assert [event.sequence for event in events] == list(range(len(events)))
    assert [event.final for event in events] == [False] * (len(events) - 1) + [True]
    assert {(event.job_id, event.user_id, event.execution) for event in events} == {
        (JOB.job_id, JOB.user_id, EXECUTION)
    }
    assert where == StreamedRange(
        execution=EXECUTION, partition=3, first_offset=10, last_offset=10 * len(events)
    )  # fmt: skip
    took_s = brokers.times[-1] - brokers.times[0]
    assert len(events) <= took_s / WINDOW_S + 2  # never a record for each token
    gaps = [after - before for before, after in zip(brokers.times[:-2], brokers.times[1:-1], strict=True)]
    assert min(gaps) >= WINDOW_S * 0.9


def topic_of(brokers: FakeBrokers, **windows: Any) -> DeltaTopic:
    return DeltaTopic(brokers.offer, "p.completion-streamed", first_within_s=0.0, **windows)


def test_all_tell_at_moments_that_they_have_in_common_and_none_sooner_than_a_window_or_much_later() -> None:
    moments = Moments(0.075, 0.1)
    dice = Random(1)
    for telling, is_second, window_s in ((0, False, 0.075), (1000, False, 0.1), (1000, True, 0.075)):
        moments.telling = telling
        for _ in range(200):
            now = dice.uniform(1000, 1001)
            at = moments.next(now, last_at=now, is_second=is_second)
            assert at / MOMENT_S == pytest.approx(round(at / MOMENT_S))
            assert window_s - 0.001 <= at - now <= window_s + MOMENT_S
            late = at + dice.uniform(0, 0.004)  # of the moment, not of when it came to it: they stay together
            again = moments.next(late + 0.002, last_at=moments.met(late), is_second=is_second)
            assert again == pytest.approx(at + window_s)
            overslept = moments.next(late + 0.012, last_at=moments.met(at + 0.01), is_second=is_second)
            assert overslept - (at + 0.01) >= window_s


async def test_executions_that_began_at_other_times_tell_together_and_their_first_pieces_do_not_wait() -> None:
    brokers = FakeBrokers()
    topic = topic_of(brokers, window_s=3 * MOMENT_S)
    with ExitStack() as stack:
        executions = [stack.enter_context(topic.execution(job(), max_chars=1000)) for _ in range(3)]
        for number, one in enumerate(executions, start=1):
            await one.tell("first ")
            await until(lambda number=number: len(brokers.records) == number)
            await until(lambda one=one: one._telling is None)
        for one in executions:
            await one.tell("second ")
        due = [one._timer.when() / MOMENT_S for one in executions if one._timer]  # whenever they began
        assert all(abs(at - round(at)) < 0.01 for at in due)
        assert len(due) == 3
        await until(lambda: len(brokers.records) == 6)


async def test_where_many_are_told_of_each_is_told_of_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltas, "BUSY", 1)
    brokers = FakeBrokers()
    topic = topic_of(brokers, window_s=3 * MOMENT_S, busy_window_s=100.0)
    with topic.execution(job(), max_chars=1000) as one:
        with topic.execution(job(), max_chars=1000) as another:
            for told in (one, another):
                await told.tell("a")
            await until(lambda: len(brokers.records) == 2)
            for told in (one, another):
                await told.tell("b")
            await until(lambda: len(brokers.records) == 4)  # the second piece is never late
            await one.tell("c")
            await asyncio.sleep(MOMENT_S * 5)
            assert len(brokers.records) == 4
            assert await another.end("ab") is not None
        assert await one.end("abc") is not None  # the end waits for no moment
        begun = topic.execution(job(), max_chars=1000)
        with begun:  # it is the only one now
            await paced(begun.tell, ["a", "b", "c"], MOMENT_S * 5)
            assert len(brokers.records) == 9


async def test_the_first_piece_goes_at_once() -> None:
    brokers = FakeBrokers()
    with execution(brokers, window_s=10.0) as told:
        await told.tell("Because")
        await asyncio.sleep(0.02)
        assert [event.text for event in brokers.events] == ["Because"]
        await told.tell(" of")
        await told.tell(" it")
        await asyncio.sleep(0.02)
        assert len(brokers.records) == 1
        await told.end("Because of it")  # does not wait for the window
    assert [event.text for event in brokers.events] == ["Because", " of it"]


async def test_a_piece_that_comes_alone_does_not_wait_for_another() -> None:
    brokers = FakeBrokers()
    with execution(brokers) as told:
        await paced(told.tell, ["a", "b"], WINDOW_S * 2)
        assert [event.text for event in brokers.events] == ["a", "b"]


async def test_an_answer_that_is_whole_at_once_is_no_record() -> None:
    brokers = FakeBrokers()
    with execution(brokers, first_within_s=5.0) as told:
        await told.tell("Because")
        assert await told.end("Because") is None
    assert brokers.records == []


async def test_one_record_is_on_its_way_at_a_time() -> None:
    brokers = FakeBrokers()
    with execution(brokers, window_s=0.001) as told:
        brokers.answering.clear()
        await paced(told.tell, list("abcdef"), 0.005)
        assert len(brokers.records) == 1  # the brokers are slow: what comes meanwhile is batched, not queued
        brokers.answering.set()
        await told.end("abcdef")
    assert brokers.max_unanswered == 1
    assert brokers.events[0].text == "a"
    assert "".join(event.text for event in brokers.events) == "abcdef"


async def test_what_is_left_without_an_end_is_void_and_says_no_more() -> None:
    brokers = FakeBrokers()
    with execution(brokers) as told:
        await told.tell("a")
        await asyncio.sleep(0.01)
        await told.tell("b")
    await asyncio.sleep(WINDOW_S * 2)
    assert [(event.text, event.final) for event in brokers.events] == [("a", False)]


async def test_no_more_is_told_than_the_answer_may_be_long() -> None:
    brokers = FakeBrokers()
    with execution(brokers, max_chars=5) as told:
        await paced(told.tell, ["abc", "def", "ghi"], WINDOW_S * 1.5)
        where = await told.end("abcde")
    assert "".join(event.text for event in brokers.events) == "abcde"
    assert where is not None
    assert brokers.events[-1].final


async def test_an_answer_that_is_another_one_in_the_end_is_nowhere() -> None:
    brokers = FakeBrokers()
    with execution(brokers) as told:
        await paced(told.tell, ["the secret is"], 0.01)
        assert await told.end("I cannot say that.") is None
    assert not brokers.events[-1].final


async def test_brokers_that_are_away_for_a_moment_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltas, "AGAIN_S", 0.01)
    brokers = FakeBrokers(KafkaTimeoutError(), KafkaTimeoutError())
    with execution(brokers) as told:
        text = await paced(told.tell, ["a", "b", "c"], WINDOW_S)
        assert await told.end(text) is not None
    assert "".join(event.text for event in brokers.events) == text


async def test_brokers_that_do_not_answer_hold_no_answer_up() -> None:
    brokers = FakeBrokers()
    with execution(brokers, end_within_s=0.05) as told:
        brokers.answering.clear()
        await paced(told.tell, ["a"], 0.01)
        async with asyncio.timeout(1):
            assert await told.end("ab") is None


async def test_brokers_that_refuse_are_not_asked_again() -> None:
    brokers = FakeBrokers(TopicAuthorizationFailedError("t"))
    with execution(brokers) as told:
        text = await paced(told.tell, ["a", "b", "c"], WINDOW_S)
        assert await told.end(text) is None
    assert len(brokers.times) == 1


async def test_a_large_piece_is_cut_into_what_a_record_takes() -> None:
    brokers, text = FakeBrokers(), "x" * (2 * MAX_PIECE_CHARS) + "y" * 10
    with execution(brokers, max_chars=10**6, window_s=0.0) as told:
        await told.tell(text[: MAX_PIECE_CHARS + 7])
        await asyncio.sleep(0.01)
        assert await told.end(text) is not None
    assert max(len(event.text) for event in brokers.events) == MAX_PIECE_CHARS
    assert "".join(event.text for event in brokers.events) == text


async def test_half_a_character_waits_for_its_other_half() -> None:
    brokers = FakeBrokers()
    with execution(brokers) as told:
        await paced(told.tell, ["a\ud83d", "\ude00b"], WINDOW_S * 1.5)
    assert [event.text for event in brokers.events] == ["a", "😀b"]


async def test_a_record_is_a_cloud_event_with_an_id_of_its_own() -> None:
    brokers = FakeBrokers()
    with execution(brokers) as told:
        await paced(told.tell, ["a", "b"], WINDOW_S * 1.5)
    found = [Attributes.parse(record.headers) for record in brokers.records]
    assert [one.type for one in found] == ["completion-streamed"] * 2
    assert len({one.event_id for one in found}) == 2
    assert {record.key for record in brokers.records} == {str(JOB.job_id).encode()}


def test_ids_of_executions_sort_by_their_time() -> None:
    earlier, later = uuid7(now_ms=1_700_000_000_000), uuid7(now_ms=1_700_000_000_001)
    assert earlier < later
    assert (earlier.version, earlier.variant) == (7, "specified in RFC 4122")
