"""What the stages of documents are given: copies of files, what publishes chunks and progress, and the sweep."""

import asyncio
import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from processors.documents.document_ports import Collection
from processors.errors import PermanentError, RetryableError
from schemas.envelope import Attributes, Record, first_header
from schemas.events import ChunksPrepared, DocumentProgress, JobProgressed
from schemas.requests import DocumentReference
from schemas.topics import Catalog
from sinks.document_sweep import OldVersion
from sinks.payloads import FileFacts
from streams import document_sweep
from streams.cause import CAUSE
from streams.chunk_writer import OUTSTANDING, ChunkTopic
from streams.document_sweep import sweep_documents, sweep_once
from streams.encode import Encoder
from streams.files import PREFIX, StoredFiles
from streams.progress import DocumentProgressTopic
from tests.document_fakes import FakeVectors
from tests.factories import chunks_prepared, job
from tests.waiting import until

REFERENCE = DocumentReference(payload_id=uuid4())
ENCODER = Encoder(Catalog.load(prefix="p."))


class FakeStore:
    """A file of these parts; `size`: as it is told."""

    def __init__(self, *parts: bytes, size: int | None = None) -> None:
        self._parts, self._size = parts, sum(map(len, parts)) if size is None else size

    async def file(self, payload_id: UUID, *, user_id: str) -> FileFacts | None:
        known = (payload_id, user_id) == (REFERENCE.payload_id, "alice")
        return FileFacts(self._size, "a" * 64, "text/plain") if known else None

    async def parts(self, payload_id: UUID, *, user_id: str) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part


def stored(store: Any, folder: Path, at_once: int = 2) -> StoredFiles:
    return StoredFiles(store, at_once=at_once, folder=folder)


async def test_a_copy_is_for_nobody_else_and_no_longer_there_than_it_is_needed(tmp_path: Path) -> None:
    files = stored(FakeStore(b"ab", b"c"), tmp_path)
    async with files.held(REFERENCE, user_id="alice") as file:
        assert file is not None
        assert file.path.read_bytes() == b"abc"
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
        assert (file.size, file.sha256, file.media_type) == (3, "a" * 64, "text/plain")
    assert os.listdir(tmp_path) == []
    with contextlib.suppress(ValueError):
        async with files.held(REFERENCE, user_id="alice"):
            raise ValueError
    assert os.listdir(tmp_path) == []
    async with files.held(REFERENCE, user_id="bob") as nothing:
        assert nothing is None
    async with stored(FakeStore(b"ab", size=3), tmp_path).held(REFERENCE, user_id="alice") as half:
        assert half is None  # it was deleted meanwhile
    with pytest.raises(PermanentError, match="DATABASE_URL"):
        async with stored(None, tmp_path).held(REFERENCE, user_id="alice"):
            pass


async def test_no_more_copies_are_there_at_once_than_may(tmp_path: Path) -> None:
    files, go = stored(FakeStore(b"x"), tmp_path, at_once=2), asyncio.Event()

    async def hold() -> None:
        async with files.held(REFERENCE, user_id="alice"):
            await go.wait()

    holding = [asyncio.create_task(hold()) for _ in range(5)]
    await until(lambda: len(os.listdir(tmp_path)) == 2)
    await asyncio.sleep(0.05)
    assert len(os.listdir(tmp_path)) == 2
    go.set()
    await asyncio.gather(*holding)
    assert os.listdir(tmp_path) == []


def test_the_copies_of_a_process_that_was_killed_are_deleted_by_the_next_one(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, own = tmp_path / f"{PREFIX}{gone.pid}-x", tmp_path / f"{PREFIX}{os.getpid()}-x"
    other = tmp_path / "of somebody else"
    for path in (left, own, other):
        path.touch()
    stored(FakeStore(), tmp_path)
    assert set(os.listdir(tmp_path)) == {own.name, other.name}


class FakeApp:
    """Brokers that answer when told to. `records`: what was published; `error`: their answer."""

    def __init__(self) -> None:
        self.records, self.told, self.under_way, self.most = list[Record](), list[Record](), 0, 0
        self.answering, self.error = asyncio.Event(), None
        self.answering.set()

    async def publish(self, records: list[Record]) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.answering.wait()
        self.under_way -= 1
        if self.error is not None:
            raise self.error
        self.records += records

    async def tell(self, record: Record) -> None:
        self.told.append(record)


@pytest.fixture
def app() -> Any:
    CAUSE.set(Attributes("cause-1", "/s", "document-received", trace=(("traceparent", "00-1"),)))
    return FakeApp()


async def test_batches_are_on_their_way_a_few_at_a_time_and_flush_waits_for_all(app: FakeApp) -> None:
    app.answering.clear()
    of = [chunks_prepared(batch=n) for n in range(OUTSTANDING + 3)]
    async with contextlib.aclosing(ChunkTopic(app, ENCODER)) as writer:  # type: ignore[arg-type]  # as far as it is used

        async def write() -> None:
            for event in of:
                await writer.write(event)
            await writer.flush()

        writing = asyncio.create_task(write())
        await until(lambda: app.under_way == OUTSTANDING)
        await asyncio.sleep(0.02)
        assert app.under_way == OUTSTANDING
        assert not writing.done()
        app.answering.set()
        await writing
    assert app.most == OUTSTANDING
    assert sorted(ChunksPrepared.model_validate_json(one.value or b"").batch for one in app.records) == list(
        range(len(of))
    )


async def test_the_same_batch_has_the_same_id_whatever_event_it_is_cut_for(app: FakeApp) -> None:
    event = chunks_prepared()
    for cause in ("cause-1", "a retry of it"):
        CAUSE.set(Attributes(cause, "/s", "document-received"))
        writer = ChunkTopic(app, ENCODER)  # type: ignore[arg-type]
        for batch in (event, event.model_copy(update={"batch": 1})):
            await writer.write(batch)
        await writer.flush()
    ids = [first_header(record.headers, "ce_id") for record in app.records]
    assert ids[:2] == ids[2:]
    assert ids[0] != ids[1]
    assert [first_header(record.headers, "ce_causationid") for record in app.records][::2] == [
        "cause-1",
        "a retry of it",
    ]
    assert {(record.topic, record.key) for record in app.records} == {
        ("p.chunks-prepared", str(event.job.job_id).encode())
    }


async def test_what_the_brokers_do_not_take_is_raised_and_nothing_is_left_under_way(app: FakeApp) -> None:
    app.error = RuntimeError("refused")  # type: ignore[assignment]
    async with contextlib.aclosing(ChunkTopic(app, ENCODER)) as writer:  # type: ignore[arg-type]
        await writer.write(chunks_prepared())
        with pytest.raises(RuntimeError):
            await writer.flush()
    app.error = None
    app.answering.clear()
    async with contextlib.aclosing(ChunkTopic(app, ENCODER)) as writer:  # type: ignore[arg-type]
        await writer.write(chunks_prepared())
        await asyncio.sleep(0)
    app.answering.set()
    await asyncio.sleep(0)
    assert app.records == []


async def test_progress_is_told_now_and_then_for_each_job(app: FakeApp) -> None:
    now = 100.0
    teller = DocumentProgressTopic(app, ENCODER, stage="embed_chunks", clock=lambda: now)  # type: ignore[arg-type]
    one, other = job(kind="document"), job(kind="document")
    for chunks in range(3):
        await teller.tell(one, DocumentProgress(chunks=chunks))
    await teller.tell(other, DocumentProgress(chunks=7))
    now += 0.5
    await teller.tell(one, DocumentProgress(chunks=9, chunks_total=10))
    told = [JobProgressed.model_validate_json(record.value or b"") for record in app.told]
    assert [(event.job_id, event.document and event.document.chunks) for event in told] == [
        (one.job_id, 0), (other.job_id, 7), (one.job_id, 9)
    ]  # fmt: skip
    assert {(event.state, event.stage) for event in told} == {("working", "embed_chunks")}
    assert len({first_header(record.headers, "ce_id") for record in app.told}) == 3


class FakeOld:
    """Versions that are to go. `cleared`: those that are told to be without vectors."""

    def __init__(self, *versions: OldVersion) -> None:
        self.versions, self.cleared = list(versions), list[OldVersion]()
        self.failed = self.forgotten = self.settled = 0

    async def fail_ended(self) -> int:
        self.failed += 1
        return 0

    async def settle(self) -> int:
        self.settled += 1
        return 0

    async def with_vectors(self) -> list[OldVersion]:
        return [version for version in self.versions if version not in self.cleared]

    async def without_vectors(self, version: OldVersion) -> None:
        self.cleared.append(version)

    async def forget(self) -> int:
        self.forgotten += 1
        return 0


def old_version(collection: Collection | None) -> OldVersion:
    return OldVersion(uuid4(), uuid4(), "alice", collection, datetime.now(UTC))


async def test_the_sweep_deletes_vectors_before_it_says_so() -> None:
    with_some, without = old_version(Collection("local", "m", 4)), old_version(None)
    old, vectors = FakeOld(with_some, without), FakeVectors()
    assert await sweep_once(old, vectors) == 2  # type: ignore[arg-type]  # as far as they are used
    assert vectors.deleted == [("alice", with_some.collection, with_some.version_id)]
    assert old.cleared == [with_some, without]

    async def away(*_: Any) -> None:
        raise RetryableError("vectors-unavailable", "away")

    again = FakeOld(with_some)
    with pytest.raises(RetryableError):
        await sweep_once(again, SimpleNamespace(delete_version=away))  # type: ignore[arg-type]
    assert again.cleared == []


async def test_the_sweep_outlives_what_is_away_and_bugs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_sweep, "EVERY_S", 0)
    old = FakeOld(old_version(Collection("local", "m", 4)))
    errors: list[Exception] = [RetryableError("vectors-unavailable", "away"), ValueError("a bug")]

    async def delete(*_: Any) -> None:
        if errors:
            raise errors.pop(0)

    sweeping = asyncio.create_task(sweep_documents(old, SimpleNamespace(delete_version=delete)))  # type: ignore[arg-type]
    await until(lambda: old.cleared and old.forgotten)
    sweeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sweeping
