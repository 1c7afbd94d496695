"""Documents while what they need is away: their jobs wait, go on when it is back, or end and say why."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from processors.errors import RetryableError
from processors.partition_document import partition_document
from processors.retries import LONG_FIRST_S
from processors.run_stage import Limits, Past, run_stage
from processors.stage import DeadLetter, Drop, Emit, Later
from schemas.envelope import Attributes, Envelope
from schemas.events import ChunksPrepared, JobFinished
from schemas.topics import Catalog
from streams.encode import Encoder
from streams.later import as_released, put_off
from tests.document_fakes import FakeEmbedder, FakeFiles, FakeParser, FakeTeller, FakeWriter, LineChunker, MemoryLedger
from tests.factories import NOW, document_received
from tests.processors.test_embed_chunks import Scene
from tests.processors.test_partition_document import SIZE

DAY_S = 86_400.0
ENCODER = Encoder(Catalog.load(prefix="p."))
Stage = Callable[..., Awaitable[Any]]


class Away:
    """A scene of `embed_chunks` whose provider, or whose vectors, are away until `is_back`."""

    def __init__(self, what: str) -> None:
        self.scene, self.is_back, self.tried = Scene(batches=1), False, 0
        self.code = "provider-unreachable" if what == "provider" else "vectors-unavailable"
        if what == "provider":
            self.scene.provider = self  # type: ignore[assignment]
        else:
            self.scene.vectors.on_store = self.check

    embedding_model = "m1"

    def check(self) -> None:
        self.tried += 1
        if not self.is_back:
            raise RetryableError(self.code, "it is away")

    async def embed(self, texts: Any, **more: Any) -> Any:
        self.check()
        return await FakeEmbedder().embed(texts, **more)

    async def stage(self, event: ChunksPrepared, *, now: Any) -> Any:
        return await self.scene.run(event)


async def no_time(_: float) -> None: ...


async def run(stage: Stage, event: Any, *, expires_in_s: float = DAY_S) -> Any:
    """As `StageServer` runs it, without waiting."""
    limits = Limits(max_retries=3, timeout_s=event.work_s, expires_in_s=expires_in_s)
    return await run_stage(
        stage, event, job=event.job, target="documents", limits=limits, past=Past(event.retry, event.attempts),
        now=lambda: NOW, sleep=no_time,
    )  # fmt: skip


def released(event: Any, later: Later, stage: str) -> Any:
    """What comes back once it is due."""
    envelope = Envelope(Attributes("e", "/s", "t"), event)
    due = put_off(envelope, later, ENCODER, stage=stage, now=NOW)
    assert (due.job_id, due.code) == (event.job.job_id, later.code)  # what `GET /jobs/{id}` tells of it
    again = as_released(due, envelope).payload
    assert isinstance(again, type(event))
    return again


@pytest.mark.parametrize("what", ["provider", "vectors"])
async def test_a_batch_waits_for_as_long_as_it_takes_and_goes_on(what: str) -> None:
    away = Away(what)
    event, waited_s = away.scene.batch(), 0.0
    for rounds in range(1, 6):  # longer each time
        later = await run(away.stage, event)
        assert isinstance(later, Later)
        assert (later.code, away.tried) == (away.code, 4 * rounds)
        assert later.wait_s > 0
        waited_s += later.wait_s
        assert away.scene.ledger.counted == {}
        event = released(event, later, "embed_chunks")
        assert event.retry == rounds
    assert waited_s > 10 * LONG_FIRST_S
    away.is_back = True
    done = await run(away.stage, event)
    assert isinstance(done, Emit)
    (finished,) = done.events
    assert isinstance(finished, JobFinished)
    assert finished.status == "completed"
    assert [attempt.code for attempt in finished.attempts][-2:] == [away.code, None]  # and it is told of in the result
    assert away.scene.ledger.counted == {0: 3}


@pytest.mark.parametrize("what", ["provider", "vectors"])
async def test_a_batch_whose_deadline_comes_before_the_next_try_ends_its_job_with_what_was_missing(what: str) -> None:
    away = Away(what)
    ended = await run(away.stage, away.scene.batch(), expires_in_s=1.0)
    assert isinstance(ended, DeadLetter)
    assert (ended.code, ended.reason) == (away.code, "it is away")


async def test_a_batch_that_comes_after_its_deadline_is_not_paid_for() -> None:
    away = Away("provider")
    ended = await run(away.stage, away.scene.batch(), expires_in_s=0.0)
    assert isinstance(ended, Emit)
    (finished,) = ended.events
    assert isinstance(finished, JobFinished)
    assert finished.error is not None
    assert (finished.error.code, away.tried) == ("expired", 0)


async def test_a_document_is_read_once_the_database_is_back() -> None:
    ledger, writer = MemoryLedger(), FakeWriter()
    begin, is_back = ledger.begin, False

    async def begin_if_there(*given: Any, **more: Any) -> Any:
        if not is_back:
            raise RetryableError("postgres-unavailable", "it is away")
        return await begin(*given, **more)

    ledger.begin = begin_if_there  # type: ignore[method-assign]
    ports: dict[str, Any] = {"chunking": LineChunker}
    stage = partial(
        partition_document, **ports, files=FakeFiles(), parser=FakeParser(), chunk_size=lambda _: SIZE,
        providers={"openai": FakeEmbedder()}, ledger=ledger, writer=writer, progress=FakeTeller(),
    )  # fmt: skip
    later = await run(stage, event := document_received())
    assert isinstance(later, Later)
    assert (later.code, writer.written) == ("postgres-unavailable", [])
    is_back = True
    assert await run(stage, released(event, later, "partition_document")) == Drop("partitioned")
    assert len(writer.written) == 1
