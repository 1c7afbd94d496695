"""Serves a sink: all that waits of a partition in one call, again and again until the target has it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from aiokafka.structs import ConsumerRecord

from processors.errors import PermanentError, RetryableError
from processors.stage import DeadLetter
from schemas.envelope import Envelope
from schemas.events import Event
from sinks.base import PoisonableSink, Sink
from streams import metrics
from streams.app import StreamApp
from streams.decode import Decode, Undecodable, decoder
from streams.encode import Encoder
from streams.serve import Stream

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)
SINK_FIRST_BACKOFF_S = 0.1
SINK_MAX_BACKOFF_S = 5.0


GiveUp = Callable[[str, Sequence[tuple[ConsumerRecord, Undecodable]]], Awaitable[None]]  # the name is the sink's


async def serve_sink(
    stream: Stream, event: type[E] | Decode, sink: Sink, *, name: str, give_up: GiveUp | None = None
) -> None:
    """Serve a sink: all that waits of a partition in one call, again and again until the target has it.

    A single bad row is found by halving the batch.

    Args:
        stream: The agent's.
        event: The class of the topic's events, or how its records are read.
        sink: Where they go.
        name: As it stands in metrics.
        give_up: Takes the records that are no events, with why; None: they are counted and passed over, since a stage
            that reads the same topic gives them up.
    """
    decode: Decode = decoder(event) if isinstance(event, type) else event

    async def handle(records: Sequence[ConsumerRecord]) -> None:
        found = [decode(record) for record in records]
        envelopes = [envelope for envelope in found if isinstance(envelope, Envelope)]
        unreadable = [(record, one) for record, one in zip(records, found, strict=True) if isinstance(one, Undecodable)]
        if unreadable:
            metrics.outcome_of(name, "undecodable").inc(len(unreadable))
            logger.error("%s: %d records are no events", name, len(unreadable))
            if give_up is not None:
                await give_up(name, unreadable)
        await write_all(sink, envelopes, name=name)
        metrics.outcome_of(name, "stored").inc(len(envelopes))

    async for batch in stream:
        batch.lane.run_as_batch(batch, handle)


async def write_all(
    sink: Sink,
    envelopes: Sequence[Envelope[E]],
    *,
    name: str,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Return once the target has all of it; waits without limit while it is away."""
    if not envelopes:
        return
    backoff = SINK_FIRST_BACKOFF_S
    while True:
        try:
            await sink.write(envelopes)
        except RetryableError as error:
            metrics.RETRIES.labels(name, error.code).inc()
            if backoff == SINK_FIRST_BACKOFF_S:
                logger.warning("%s waits for its target: %s", name, error.message)
            await sleep(backoff)
            backoff = min(SINK_MAX_BACKOFF_S, backoff * 2)
        except PermanentError as error:
            if len(envelopes) > 1:
                half = len(envelopes) // 2
                await write_all(sink, envelopes[:half], name=name, sleep=sleep)
                await write_all(sink, envelopes[half:], name=name, sleep=sleep)
                return
            metrics.outcome_of(name, "refused").inc()
            logger.error("%s: a row was refused: %s", name, error.message)  # noqa: TRY400 no traceback: it may hold text
            if isinstance(sink, PoisonableSink):
                await sink.write_poisoned(envelopes[0])
            return
        else:
            return


async def as_dead_letters(
    app: StreamApp, encoder: Encoder, sink: str, records: Sequence[tuple[ConsumerRecord, Undecodable]]
) -> None:
    """Give up what is no event: it becomes a dead letter of the sink that should have stored it."""
    now = datetime.now(UTC)
    letters = [
        encoder.dead_letter(
            record, DeadLetter(why.code, why.reason), stage=sink, outcome_id=None, at=now
        )
        for record, why in records
    ]  # fmt: skip
    await app.publish(letters)
