"""What no broker takes: said in its place, so that a job ends and its partition flows on."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
from faust.exceptions import ProducerSendError

from processors.stage import DeadLetter, Emit
from schemas.envelope import Attributes, Envelope, Record
from schemas.events import JobFinished
from schemas.topics import MAX_MESSAGE_BYTES, Catalog
from streams import app as app_module
from streams.app import StreamApp
from streams.bad_luck import BadLuck
from streams.cancellations import Cancellations
from streams.encode import Encoder
from streams.serve import StageServer
from tests.factories import NOW, completion_requested, job_finished

CAUSE = Attributes("e-1", "/s", "completion-requested")
HEADERS = (("ce_id", b"e-1"), ("mine", None))


def record(key: bytes | None = b"k", value: bytes | None = b"v") -> Any:
    return SimpleNamespace(topic="job-requested", partition=0, offset=5, key=key, value=value, headers=HEADERS)


def encoder() -> Encoder:
    return Encoder(Catalog.load(prefix="p."))


def outputs(emit: Emit) -> list[Record]:
    app: Any = SimpleNamespace(lanes={"job-requested": SimpleNamespace(luck=BadLuck("s"))})  # publishes nothing here
    server = StageServer(app, encoder(), max_retries=0, cancellations=Cancellations({}))
    envelope = Envelope(CAUSE, completion_requested())
    return server._records(record(), envelope, emit, "generate_completion", NOW)


def finished(output: Record) -> JobFinished:
    return JobFinished.model_validate_json(output.value or b"")


def test_a_result_larger_than_its_topic_takes_ends_the_job_and_is_a_dead_letter() -> None:
    huge = job_finished(result={"text": "x" * MAX_MESSAGE_BYTES})
    outcome, letter = outputs(Emit((huge,)))
    error = finished(outcome).error
    assert error is not None
    assert error.code == "output-too-large"
    assert letter.topic == "p.dead-letters"
    assert dict(letter.headers)["dlq-code"] == b"output-too-large"
    assert (letter.key, letter.value) == (b"k", b"v")


def test_an_output_knows_what_to_say_where_the_brokers_refuse_it() -> None:
    (output,) = outputs(Emit((job_finished(),)))
    assert output.instead is not None
    outcome, letter = output.instead()
    error = finished(outcome).error
    assert error is not None
    assert error.code == "output-too-large"
    told = dict(letter.headers)
    assert told["dlq-outcome-id"] == dict(outcome.headers)["ce_id"]


@pytest.mark.parametrize(("key", "value"), [(b"", b""), (None, b"v"), (b"k", None), (b"", None)])
def test_a_dead_letters_key_and_value_are_untouched(key: bytes | None, value: bytes | None) -> None:
    letter = encoder().dead_letter(
        record(key, value), DeadLetter("invalid-event", "r"), stage="s", outcome_id=None, at=NOW
    )
    assert (letter.key, letter.value) == (key, value)
    assert letter.headers[:2] == list(HEADERS)


def test_a_dead_letter_of_nothing_has_an_empty_value_for_else_it_could_not_be_sent() -> None:
    letter = encoder().dead_letter(
        record(None, None), DeadLetter("invalid-event", "r"), stage="s", outcome_id=None, at=NOW
    )
    assert (letter.key, letter.value) == (None, b"")


def test_a_dead_letter_that_is_refused_is_told_of_with_ever_less() -> None:
    letter = encoder().dead_letter(
        record(value=b"x" * 100), DeadLetter("invalid-event", "r"), stage="s", outcome_id=None, at=NOW
    )
    assert letter.instead is not None
    (without_value,) = letter.instead()
    assert (without_value.key, without_value.value) == (b"k", None)
    assert without_value.headers[:2] == list(HEADERS)
    assert dict(without_value.headers)["dlq-value-left-out"] == b"100"
    assert without_value.instead is not None
    (bare,) = without_value.instead()
    assert (bare.key, bare.value, bare.instead) == (None, b"", None)
    assert "ce_id" not in dict(bare.headers)
    assert dict(bare.headers)["dlq-topic"] == b"job-requested"


class FakeProducer:
    """Refuses what is over 10 bytes, at once or by the broker's answer; is away for the first `away` calls.

    `batched`: the broker's answer to one that is too large is the answer to all that are not sent alone.
    """

    def __init__(self, error: type[Exception], *, at_once: bool, away: int = 0, batched: bool = False) -> None:
        self.error, self.at_once, self.away, self.batched = error, at_once, away, batched
        self.taken: list[bytes | None] = []
        self.ids = 0

    async def send(self, topic: str, key: Any, value: bytes | None, *rest: Any) -> "asyncio.Future[Any]":
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.away:
            self.away -= 1
            answer.set_exception(KafkaConnectionError())
        elif len(value or b"") > 10 or self.batched:
            if self.at_once:
                raise ProducerSendError("Error while sending") from self.error()
            answer.set_exception(self.error())
        else:
            self.taken.append(value)
            answer.set_result(None)
        return answer

    async def send_alone(self, record: Record) -> "asyncio.Future[Any]":
        self.batched, batched = False, self.batched
        try:
            return await self.send(record.topic, record.key, record.value)
        finally:
            self.batched = batched

    def renew_id(self) -> None:
        self.ids += 1


async def published(producer: FakeProducer, *records: Record) -> list[bytes | None]:
    await StreamApp.publish(_app(producer), records)
    return producer.taken


def _app(producer: FakeProducer) -> Any:
    app: Any = SimpleNamespace(producer=producer)
    app.offer = lambda record: StreamApp.offer(app, record)
    app.hand_over = lambda record: StreamApp.hand_over(app, record)
    app.look_at = lambda answer: StreamApp.look_at(app, answer)
    app._send_alone = lambda record: StreamApp._send_alone(app, record)
    app.publish = lambda records: StreamApp.publish(app, records)
    return app


def large(*, instead: Record | None = None) -> Record:
    return Record("t", b"k", b"x" * 11, instead=(lambda: [instead]) if instead else None)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("error", [MessageSizeTooLargeError, RecordListTooLargeError])
async def test_what_is_refused_for_good_is_replaced_and_what_is_beside_it_is_not(
    error: type[Exception], at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "SEND_RETRY_S", 0)
    smaller = large(instead=Record("t", None, b"smallest"))
    producer = FakeProducer(error, at_once=at_once, away=1)
    assert await published(producer, large(instead=smaller), Record("t", b"k", b"beside")) == [b"beside", b"smallest"]


@pytest.mark.parametrize("at_once", [True, False])
async def test_what_has_no_replacement_is_a_failure(at_once: bool) -> None:
    with pytest.raises((MessageSizeTooLargeError, ProducerSendError)):
        await published(FakeProducer(MessageSizeTooLargeError, at_once=at_once), large())


@pytest.mark.parametrize("at_once", [True, False])
async def test_another_refusal_is_a_failure_also_where_there_is_a_replacement(at_once: bool) -> None:
    """Nobody may write there: mending that, and beginning again, is what helps."""
    with pytest.raises((TopicAuthorizationFailedError, ProducerSendError)):
        await published(
            FakeProducer(TopicAuthorizationFailedError, at_once=at_once), large(instead=Record("t", None, b""))
        )


async def test_what_was_refused_for_one_beside_it_is_sent_alone_under_a_new_id() -> None:
    producer = FakeProducer(MessageSizeTooLargeError, at_once=False, batched=True)
    records = [Record("t", b"k", b"before"), large(instead=Record("t", None, b"instead")), Record("t", b"k", b"after")]
    assert await published(producer, *records) == [b"before", b"instead", b"after"]
    await asyncio.sleep(0)
    assert producer.ids > 0


async def test_what_is_out_of_order_is_sent_again_under_a_new_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "SEND_RETRY_S", 0)
    producer = FakeProducer(OutOfOrderSequenceNumber, at_once=False, batched=True)

    def renew_id() -> None:
        producer.batched = False

    monkeypatch.setattr(producer, "renew_id", renew_id)
    assert await published(producer, Record("t", b"k", b"v")) == [b"v"]
