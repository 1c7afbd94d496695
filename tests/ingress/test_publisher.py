"""What the publisher takes while the brokers do not answer: so much and no more."""

import asyncio
from typing import Any

import pytest

from ingress import publisher as module
from ingress.publisher import NotAcceptedError, OutcomeUnknownError, Publisher
from schemas.envelope import Record
from transport.clients import KafkaAccess

RECORD = Record("job-requested", b"alice", b"{}", [])


class SilentProducer:
    """Takes everything; its brokers answer only when they are told to."""

    def __init__(self) -> None:
        self.taken, self.answer = 0, asyncio.Event()

    async def send_and_wait(self, topic: str, value: bytes, **_: Any) -> None:
        self.taken += 1
        await self.answer.wait()


@pytest.fixture
def silent() -> tuple[Publisher, SilentProducer]:
    publisher, producer = Publisher(KafkaAccess("127.0.0.1:1"), timeout_s=60), SilentProducer()
    publisher._producer, publisher.problem = producer, None
    return publisher, producer


async def test_no_more_wait_for_an_answer_than_the_bound(
    silent: tuple[Publisher, SilentProducer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNANSWERED", 3)
    publisher, producer = silent
    waiting = [asyncio.create_task(publisher.publish(RECORD)) for _ in range(3)]
    for _ in range(3):
        await asyncio.sleep(0)
    with pytest.raises(NotAcceptedError, match="too many"):
        await publisher.publish(RECORD)
    assert producer.taken == 3
    producer.answer.set()
    await asyncio.gather(*waiting)
    await publisher.publish(RECORD)


async def test_after_two_silent_seconds_nothing_more_is_taken(
    silent: tuple[Publisher, SilentProducer], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    publisher, producer = silent
    first = asyncio.create_task(publisher.publish(RECORD))
    await asyncio.sleep(0)
    now += module.SILENCE_S
    publisher.check()
    now += 0.1
    with pytest.raises(NotAcceptedError, match="does not answer"):
        await publisher.publish(RECORD)
    producer.answer.set()
    await first
    now += 1000  # nothing waits: nobody is silent
    await publisher.publish(RECORD)
    assert producer.taken == 2


async def test_a_caller_who_leaves_or_waits_too_long_takes_nothing_back(
    silent: tuple[Publisher, SilentProducer],
) -> None:
    publisher, producer = silent
    publisher._timeout_s = 0.01
    with pytest.raises(OutcomeUnknownError):
        await publisher.publish(RECORD)
    leaving = asyncio.create_task(publisher.publish(RECORD))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert publisher._unanswered == 2  # both are still with the producer
    producer.answer.set()
    while publisher._unanswered:
        await asyncio.sleep(0)
