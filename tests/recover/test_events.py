"""Jobs that are brought back to a cluster that takes none: it ends, and says what to do."""

import asyncio
from typing import Any

import pytest

from recover import events
from schemas.envelope import Record


class Deaf:
    """A producer whose brokers never answer: an idempotent one waits for them as long as it lives."""

    async def send(self, *_: Any, **__: Any) -> "asyncio.Future[None]":
        return asyncio.get_running_loop().create_future()


async def test_brokers_that_never_answer_are_waited_for_no_longer_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SENT_WITHIN_S", 0.05)
    record = Record("job-admitted", b"key", b"{}", [])
    sending = asyncio.create_task(events._send(Deaf(), [record]))
    await asyncio.wait({sending}, timeout=5)
    assert sending.done()
    assert isinstance(sending.exception(), OSError)  # which `redrive` tells with what to do
