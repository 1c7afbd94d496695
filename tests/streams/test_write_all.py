"""A sink's batch: waited for while the target is away, halved where one row of it is refused."""

from collections.abc import Sequence
from typing import Any

import pytest

from processors.errors import PermanentError, RetryableError
from schemas.envelope import Attributes, Envelope
from streams.serve_sink import SINK_MAX_BACKOFF_S, write_all
from tests.factories import job_finished


class FakeSink:
    """Refuses what is `bad`; is away for the first `away` calls."""

    def __init__(self, *, bad: Sequence[Any] = (), away: int = 0) -> None:
        self.bad, self.away = list(bad), away
        self.written: list[Any] = []
        self.poisoned: list[Any] = []
        self.calls = 0

    async def write(self, envelopes: Sequence[Envelope[Any]]) -> None:
        self.calls += 1
        if self.away:
            self.away -= 1
            raise RetryableError("postgres-unavailable", "it is away")
        if any(envelope in self.bad for envelope in envelopes):
            raise PermanentError("row-refused", "it is refused")
        self.written += envelopes

    async def write_poisoned(self, envelope: Envelope[Any]) -> None:
        self.poisoned.append(envelope)


def batch(count: int) -> list[Envelope[Any]]:
    return [Envelope(Attributes(str(n), "/s", "t"), job_finished(), 0, n) for n in range(count)]


async def no_sleep(seconds: float) -> None:
    pass


@pytest.mark.parametrize("bad", [[0], [99], [3, 4, 57], []])
async def test_a_bad_row_is_found_and_marked_and_all_others_are_written_once(bad: list[int]) -> None:
    envelopes = batch(100)
    sink = FakeSink(bad=[envelopes[n] for n in bad])
    await write_all(sink, envelopes, name="store_outcome", sleep=no_sleep)
    assert sink.poisoned == [envelopes[n] for n in bad]
    assert sink.written == [envelope for n, envelope in enumerate(envelopes) if n not in bad]  # in their order
    assert sink.calls <= 1 + len(bad) * 2 * 7  # halving: about log2(100) steps for each


async def test_a_target_that_is_away_is_waited_for_without_limit_and_ever_more_slowly() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    envelopes = batch(3)
    sink = FakeSink(away=50)
    await write_all(sink, envelopes, name="store_outcome", sleep=sleep)
    assert sink.written == envelopes
    assert len(waits) == 50
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert max(waits) == SINK_MAX_BACKOFF_S


async def test_a_target_that_goes_away_while_a_bad_row_is_looked_for_is_waited_for_too() -> None:
    envelopes = batch(8)
    sink = FakeSink(bad=[envelopes[5]])
    write = sink.write

    async def sometimes_away(envelopes: Sequence[Envelope[Any]]) -> None:
        if sink.calls == 2:
            sink.away = 1
        await write(envelopes)

    sink.write = sometimes_away  # type: ignore[method-assign]
    await write_all(sink, envelopes, name="store_outcome", sleep=no_sleep)
    assert sink.poisoned == [envelopes[5]]
    assert len(sink.written) == 7
