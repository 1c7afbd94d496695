import asyncio
from typing import Any
from uuid import uuid4

import pytest

from processors.documents.document_ports import ChunkSize, Same
from processors.errors import PermanentError, RetryableError
from processors.partition_document import partition_document
from processors.stage import Drop, Emit
from schemas.events import JobFinished
from tests.document_fakes import (
    HELD,
    FakeEmbedder,
    FakeFiles,
    FakeParser,
    FakeTeller,
    FakeWriter,
    LineChunker,
    MemoryLedger,
)
from tests.factories import NOW, document_received

SIZE = ChunkSize(64, 8)


class Scene:
    """The stage with its ports."""

    def __init__(self, **ports: Any) -> None:
        self.ledger, self.writer, self.teller = MemoryLedger(), FakeWriter(), FakeTeller()
        self.ports: dict[str, Any] = {
            "files": FakeFiles(), "parser": FakeParser(), "chunk_size": lambda _: SIZE, "chunking": LineChunker,
            "ledger": self.ledger, "providers": {"openai": FakeEmbedder()}, "writer": self.writer,
            "progress": self.teller, **ports,
        }  # fmt: skip
        self.ledger, self.writer = self.ports["ledger"], self.ports["writer"]
        self.event = document_received()

    async def run(self, **event: Any) -> Any:
        self.event = document_received(**event)
        return await partition_document(self.event, **self.ports, now=NOW)


def outcome(result: Any) -> JobFinished:
    assert isinstance(result, Emit)
    (finished,) = result.events
    assert isinstance(finished, JobFinished)
    return finished


async def test_a_document_is_published_in_batches_of_32_while_it_is_read() -> None:
    scene = Scene(parser=FakeParser(pages=10, lines=7))
    assert await scene.run() == Drop("partitioned")
    assert [(event.batch, len(event.chunks)) for event in scene.writer.written] == [(0, 32), (1, 32), (2, 6)]
    assert [chunk.index for event in scene.writer.written for chunk in event.chunks] == list(range(70))
    first = scene.writer.written[0]
    assert (first.version_id, first.document_id) == (scene.ledger.version.version_id, scene.ledger.version.document_id)
    assert (first.source, first.provider, first.timeout_s) == ("handbook.pdf", "openai", 900.0)
    assert first.chunks[-1].page == 5
    assert scene.writer.flushed == 3  # before it is said that all is cut
    assert (scene.ledger.version.chunks, scene.ledger.version.batches, scene.ledger.version.pages) == (70, 3, 10)
    assert [(told.pages, told.pages_total) for told in scene.teller.told] == [(5, 10), (10, 10), (10, 10)]


async def test_the_version_is_begun_for_the_file_as_it_was_stored() -> None:
    scene = Scene()
    await scene.run()
    assert scene.ledger.begun == {
        "source": "handbook.pdf", "payload_id": scene.event.request.document.payload_id, "file": HELD,
        "provider": "openai", "model": "m1", "size": SIZE,
    }  # fmt: skip
    assert scene.ports["files"].asked == [(scene.event.request.document.payload_id, "alice")]


async def test_the_same_content_again_is_done_at_once() -> None:
    same = Same(uuid4(), uuid4(), 3, 17)
    scene = Scene(ledger=MemoryLedger(same=same))
    finished = outcome(await scene.run())
    assert finished.result == {
        "status": "ok", "document_id": str(same.document_id), "num_chunks": 17, "version_id": str(same.version_id),
        "pages": 3, "unchanged": True, "meta": {"provider": "openai", "job_id": str(scene.event.job.job_id)},
    }  # fmt: skip
    assert scene.writer.written == []


async def test_what_was_cut_before_is_not_cut_again() -> None:
    ledger = MemoryLedger(batches=2)
    scene = Scene(ledger=ledger, parser=FakeParser(error=AssertionError("it was read again")))
    assert await scene.run() == Drop("partitioned")
    ledger.counted = {0: 32, 1: 3}
    assert outcome(await scene.run()).status == "completed"


async def test_a_document_whose_last_batch_was_embedded_before_all_was_said_to_be_cut_is_finished_here() -> None:
    ledger = MemoryLedger()
    ledger.counted = {0: 1}
    assert outcome(await Scene(ledger=ledger).run()).status == "completed"


@pytest.mark.parametrize("code", ["document-unreadable", "document-encrypted", "document-too-large"])
async def test_a_file_that_cannot_be_read_ends_its_job_and_is_no_dead_letter(code: str) -> None:
    scene = Scene(parser=FakeParser(pages=40, error=PermanentError(code, "it is broken")))
    finished = outcome(await scene.run())
    assert finished.error is not None
    assert (finished.error.code, finished.error.message) == (code, "it is broken")
    assert scene.ledger.version.batches is None  # so what was published of it is never seen


async def test_a_file_without_text_says_so() -> None:
    finished = outcome(await Scene(parser=FakeParser(lines=0)).run())
    assert finished.error is not None
    assert finished.error.code == "document-empty"


async def test_a_file_that_is_not_there_ends_the_job() -> None:
    finished = outcome(await Scene(files=FakeFiles(None)).run())
    assert finished.error is not None
    assert finished.error.code == "no-such-payload"
    assert "POST /payloads" in finished.error.message


async def test_a_document_that_is_deleted_meanwhile_is_read_no_further() -> None:
    scene = Scene(parser=FakeParser(pages=1000))
    write = scene.writer.write

    async def write_and_delete(event: Any) -> None:
        await write(event)
        scene.ledger.state = "deleted"

    scene.writer.write = write_and_delete  # type: ignore[method-assign]
    finished = outcome(await scene.run())
    assert finished.error is not None
    assert finished.error.code == "document-deleted"
    assert len(scene.writer.written) == 1


async def test_what_is_wrong_with_us_is_raised() -> None:
    for error in (RetryableError("postgres-unavailable", "away"), PermanentError("no-payload-store", "no database")):
        with pytest.raises(type(error)):
            await Scene(parser=FakeParser(error=error)).run()
    with pytest.raises(PermanentError, match=r"no key or address of gemini.*here are: openai"):
        await Scene().run(provider="gemini")


async def test_others_work_while_it_counts_tokens() -> None:
    ticks = 0

    class SlowChunker(LineChunker):
        def feed(self, pages: Any) -> Any:
            seen = ticks
            deadline = 200
            while ticks == seen and deadline:  # the loop goes on meanwhile, or this never ends
                deadline -= 1
                __import__("time").sleep(0.01)
            assert deadline, "the loop stood still"
            yield from super().feed(pages)

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    try:
        assert await Scene(chunking=SlowChunker).run() == Drop("partitioned")
    finally:
        ticking.cancel()
