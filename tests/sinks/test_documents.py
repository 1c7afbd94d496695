"""The ledger of documents on a real Postgres: what is counted, which version is seen, and what is left at the end."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from processors.documents.document_ports import ChunkSize, Collection, HeldFile, Same, Version
from processors.errors import PermanentError
from schemas.envelope import Attributes, Envelope
from schemas.events import Job
from schemas.ids import uuid7
from sinks.document_lists import DocumentLists
from sinks.document_sweep import OldVersions
from sinks.documents import PostgresDocuments
from sinks.payloads import Payload, PayloadStore
from sinks.pool import Pool
from sinks.postgres import InvalidCursorError, OutcomeSink
from tests.factories import ACCEPTED_AT, chunk, chunks_prepared, job, job_finished

pytestmark = pytest.mark.integration
COLLECTION = Collection("openai", "m1", 4)
NO_TIME = timedelta(0)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=8)
    yield pool
    await pool.close()


class Documents:
    """The ledger, and who plays the stages."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.ledger, self.lists, self.old = (
            pool,
            PostgresDocuments(pool),
            DocumentLists(pool),
            OldVersions(pool),
        )

    def asked(self, *, after_s: float = 0, user_id: str = "alice") -> Job:
        return job(kind="document", user_id=user_id, accepted_at=ACCEPTED_AT + timedelta(seconds=after_s))

    async def begin(self, of: Job, content: str = "a", *, source: str = "handbook", **more: Any) -> Version | Same:
        fields: dict[str, Any] = {
            "payload_id": uuid4(), "file": HeldFile(Path("/x"), 100, content * 64, "text/plain"), "provider": "openai",
            "model": "m1", "size": ChunkSize(512, 64),
        }  # fmt: skip
        return await self.ledger.begin(of, source=source, **fields | more)

    async def version(self, of: Job, content: str = "a", **more: Any) -> Version:
        begun = await self.begin(of, content, **more)
        assert isinstance(begun, Version)
        return begun

    def batch(self, version: Version, number: int, chunks: int = 2) -> Any:
        return chunks_prepared(
            job=job(user_id=version.user_id), document_id=version.document_id, version_id=version.version_id,
            batch=number, chunks=tuple(chunk(n) for n in range(chunks)), source=version.source,
        )  # fmt: skip

    async def embed(self, version: Version, number: int, chunks: int = 2) -> Any:
        batch = self.batch(version, number, chunks)
        if await self.ledger.wanted(batch, model="m1") == "wanted":
            await self.ledger.storing(batch, collection=COLLECTION)
            await self.ledger.embedded(batch)
        return await self.ledger.finish(version.version_id)

    async def ingest(self, of: Job, content: str = "a", **more: Any) -> Version:
        version = await self.version(of, content, **more)
        await self.ledger.partitioned(version, chunks=3, batches=2, pages=1)
        await self.embed(version, 0)
        finished = await self.embed(version, 1, 1)
        assert isinstance(finished, Version)
        return finished

    async def seen(self, user_id: str = "alice") -> list[UUID]:
        """The versions that a searcher may see, of those that have vectors."""
        hidden = set(await self.ledger.hidden(user_id))
        async with self.pool.connection() as connection:
            rows = await connection.fetch(
                """SELECT version_id FROM document_versions
                   WHERE user_id = $1 AND dimensions IS NOT NULL AND has_vectors""",
                user_id,
            )
        return [row["version_id"] for row in rows if row["version_id"] not in hidden]

    async def value(self, statement: str, *values: Any) -> Any:
        async with self.pool.connection() as connection:
            return await connection.fetchval(statement, *values)


@pytest.fixture
def documents(pool: Pool) -> Documents:
    return Documents(pool)


async def test_a_document_is_done_when_every_batch_is_counted_once(documents: Documents) -> None:
    version = await documents.version(documents.asked())
    assert await documents.embed(version, 1, 1) is None  # before it is known how many there are
    await documents.ledger.partitioned(version, chunks=5, batches=3, pages=7)
    for _ in range(3):
        assert await documents.embed(version, 0) is None
    state, progress = await documents.ledger.embedded(documents.batch(version, 0))
    assert (state, progress.chunks, progress.chunks_total, progress.pages_total) == ("ingesting", 3, 5, 7)
    assert await documents.seen() == []
    finished = await documents.embed(version, 2)
    assert (finished.state, finished.chunks, finished.pages) == ("active", 5, 7)
    assert await documents.seen() == [version.version_id]
    assert await documents.ledger.collections("alice") == [COLLECTION]
    assert await documents.ledger.finish(version.version_id) == finished  # once more is the same
    assert await documents.ledger.wanted(documents.batch(version, 0), model="m1") == "counted"
    assert (await documents.ledger.progress(version.version_id)).chunks == 5
    assert await documents.value("SELECT count(*) FROM document_batches") == 0


async def test_batches_that_end_at_once_are_all_counted(documents: Documents) -> None:
    version = await documents.version(documents.asked())
    await documents.ledger.partitioned(version, chunks=16, batches=8, pages=None)
    done = await asyncio.gather(*(documents.embed(version, n % 8) for n in range(24)))
    assert any(one is not None and one.state == "active" for one in done)
    assert (await documents.ledger.progress(version.version_id)).chunks == 16


async def test_a_run_makes_the_same_version_however_often_it_begins(documents: Documents) -> None:
    asked = documents.asked()
    first = await documents.version(asked)
    assert await documents.begin(asked) == first
    assert (await documents.version(asked.model_copy(update={"run": 2}))).version_id != first.version_id
    other = await documents.version(documents.asked(user_id="bob"))
    assert other.document_id != first.document_id
    await documents.ledger.partitioned(first, chunks=2, batches=1, pages=None)
    assert (await documents.version(asked)).batches == 1
    active = await documents.embed(first, 0)
    assert await documents.begin(asked) == active  # its own is no "same"


async def test_the_same_content_again_is_no_new_version_and_another_model_is(documents: Documents) -> None:
    version = await documents.ingest(documents.asked())
    again = await documents.begin(documents.asked(after_s=1))
    assert again == Same(version.document_id, version.version_id, 1, 3)
    for difference in ({"content": "b"}, {"model": "m2"}, {"provider": "gemini"}, {"source": "other"}):
        assert isinstance(await documents.begin(documents.asked(after_s=2), **difference), Version), difference


async def test_a_changed_document_is_replaced_in_one_step(documents: Documents) -> None:
    old = await documents.ingest(documents.asked())
    seen: list[list[UUID]] = []
    stop = asyncio.Event()

    async def look() -> None:
        while not stop.is_set():
            seen.append(await documents.seen())

    looking = asyncio.create_task(look())
    new = await documents.ingest(documents.asked(after_s=1), "b")
    stop.set()
    await looking
    assert seen
    assert all(found in ([old.version_id], [new.version_id]) for found in seen)
    assert await documents.seen() == [new.version_id]
    shown = await documents.lists.get(new.document_id, of="alice")
    assert shown is not None
    assert [version["state"] for version in shown["history"]] == ["active", "replaced"]


async def test_of_two_versions_the_one_that_was_asked_for_later_stays_whoever_is_done_first(
    documents: Documents,
) -> None:
    later = await documents.ingest(documents.asked(after_s=2), "b")
    earlier = await documents.ingest(documents.asked(after_s=1), "a")
    assert earlier.state == "replaced"
    assert await documents.seen() == [later.version_id]
    slow = await documents.version(documents.asked(after_s=3), "c")
    same = await documents.begin(documents.asked(after_s=4), "b")  # it is there, and it was asked for last
    assert isinstance(same, Same)
    await documents.ledger.partitioned(slow, chunks=2, batches=1, pages=None)
    assert (await documents.embed(slow, 0)).state == "replaced"
    assert await documents.seen() == [later.version_id]


async def test_versions_that_are_done_at_the_same_moment_leave_one(documents: Documents) -> None:
    versions = [await documents.version(documents.asked(after_s=n), str(n)) for n in range(6)]
    for version in versions:
        await documents.ledger.partitioned(version, chunks=2, batches=1, pages=None)
    done = await asyncio.gather(*(documents.embed(version, 0) for version in versions))
    assert all(one is not None for one in done)
    assert await documents.seen() == [versions[-1].version_id]
    assert await documents.value("SELECT count(*) FROM document_versions WHERE state = 'active'") == 1


async def test_a_model_that_changes_in_the_middle_is_told_and_nothing_is_mixed(documents: Documents) -> None:
    version = await documents.version(documents.asked())
    with pytest.raises(PermanentError, match="model m1") as raised:
        await documents.ledger.wanted(documents.batch(version, 0), model="m2")
    assert raised.value.code == "document-model-changed"
    batch = documents.batch(version, 0)
    assert await documents.ledger.storing(batch, collection=COLLECTION) == "ingesting"
    with pytest.raises(PermanentError, match="4 numbers"):
        await documents.ledger.storing(batch, collection=Collection("openai", "m1", 8))


async def test_a_deleted_document_is_gone_for_everybody_who_works_on_it(documents: Documents) -> None:
    active = await documents.ingest(documents.asked())
    payload = Payload(uuid7(), "alice", None, "text/plain", "0" * 64, b"x")
    await PayloadStore(documents.pool).store(payload, user_bytes=1000)
    under_way = await documents.version(documents.asked(after_s=1), "b", payload_id=payload.payload_id)
    assert not await documents.lists.delete(active.document_id, of="bob")
    assert await documents.lists.delete(active.document_id, of="alice")
    assert not await documents.lists.delete(active.document_id, of="alice")
    assert await documents.lists.get(active.document_id, of="alice") is None
    assert await documents.lists.page(user_id="alice", limit=10, cursor=None) == ([], None)
    assert await documents.seen() == []
    assert await documents.ledger.collections("alice") == []
    assert await PayloadStore(documents.pool).size(payload.payload_id, user_id="alice") is None
    batch = documents.batch(under_way, 0)
    assert await documents.ledger.wanted(batch, model="m1") == "deleted"
    assert await documents.ledger.storing(batch, collection=COLLECTION) == "deleted"
    assert (await documents.ledger.embedded(batch))[0] == "deleted"
    for work in (
        documents.ledger.progress(under_way.version_id), documents.ledger.finish(under_way.version_id),
        documents.ledger.partitioned(under_way, chunks=1, batches=1, pages=1),
        documents.begin(documents.asked(after_s=2)),
    ):  # fmt: skip
        with pytest.raises(PermanentError) as raised:
            await work
        assert raised.value.code == "document-deleted"
    later = documents.asked(after_s=1_000_000_000)  # asked for after it was deleted
    assert (await documents.ingest(later)).state == "active"
    shown = await documents.lists.get(active.document_id, of="alice")
    assert shown is not None
    assert (shown["source"], shown["versions"]) == ("handbook", 1)


async def test_nothing_is_left_of_a_deleted_document(documents: Documents) -> None:
    active = await documents.ingest(documents.asked())
    await documents.lists.delete(active.document_id, of=None)
    (old,) = await documents.old.with_vectors()
    assert (old.user_id, old.version_id, old.collection) == ("alice", active.version_id, COLLECTION)
    late = documents.batch(active, 0)
    assert await documents.ledger.wanted(late, model="m1") == "deleted"  # who may just have stored some more
    await documents.old.without_vectors(old)
    (again,) = await documents.old.with_vectors()
    await documents.old.without_vectors(again)
    assert await documents.old.with_vectors() == []
    # Or who stored some after there were none any more, and was killed before saying so: its batch comes again.
    for late_word in (documents.ledger.wanted(late, model="m1"), documents.ledger.embedded(late)):
        await late_word
        (again,) = await documents.old.with_vectors()
        await documents.old.without_vectors(again)
    assert await documents.old.forget() == 1
    assert await documents.value("SELECT count(*) FROM document_versions") == 0
    row = await documents.value("SELECT source FROM documents")
    assert row == str(active.document_id)  # that it was deleted is known to jobs that were under way, but no name
    await documents.value("UPDATE documents SET deleted_at = now() - interval '2 days'")
    assert await documents.old.forget() == 1
    assert await documents.value("SELECT count(*) FROM documents") == 0


async def test_the_vectors_of_a_replaced_version_stay_for_those_who_are_searching(documents: Documents) -> None:
    old = await documents.ingest(documents.asked())
    new = await documents.ingest(documents.asked(after_s=1), "b")
    assert await documents.old.with_vectors() == []
    (found,) = await documents.old.with_vectors(replaced_kept=NO_TIME)
    assert found.version_id == old.version_id
    await documents.old.without_vectors(found)
    assert await documents.ledger.hidden("alice") == []
    assert await documents.seen() == [new.version_id]


async def test_a_version_whose_job_ended_with_an_error_has_failed(documents: Documents) -> None:
    asked, other = (job(kind="document", accepted_at=datetime.now(UTC)) for _ in range(2))
    version = await documents.version(asked)
    await documents.ledger.storing(documents.batch(version, 0), collection=COLLECTION)
    under_way = await documents.version(other, source="other")
    assert await documents.old.fail_ended() == 0
    finished = job_finished(job=asked, code="cancelled")
    await OutcomeSink(documents.pool).write([Envelope(Attributes("e", "/s", "t"), finished)])
    assert await documents.old.fail_ended() == 1
    assert await documents.ledger.wanted(documents.batch(version, 0), model="m1") == "failed"
    for work in (documents.ledger.finish(version.version_id), documents.begin(asked)):
        with pytest.raises(PermanentError) as raised:
            await work
        assert raised.value.code == "document-ended"
    assert [old.version_id for old in await documents.old.with_vectors()] == [version.version_id]
    shown = {item["source"]: item for item in (await documents.lists.page(user_id="alice", limit=9, cursor=None))[0]}
    assert shown["handbook"]["status"] == "failed"
    assert shown["handbook"]["error"]["code"] == "cancelled"
    assert shown["other"]["status"] == "ingesting"
    assert under_way.state == "ingesting"


async def test_old_versions_of_a_document_are_bounded(documents: Documents) -> None:
    for n in range(24):
        await documents.ingest(documents.asked(after_s=n), "ab"[n % 2])
    assert await documents.old.forget() == 0  # while their vectors are there
    for old in await documents.old.with_vectors(replaced_kept=NO_TIME):
        await documents.old.without_vectors(old)
    assert await documents.old.forget() == 3
    (shown,) = (await documents.lists.page(user_id="alice", limit=9, cursor=None))[0]
    assert shown["versions"] == 21


async def test_pages_of_documents_hold_ones_own(documents: Documents) -> None:
    made = [await documents.ingest(documents.asked(), source=f"s{n}") for n in range(5)]
    theirs = await documents.ingest(documents.asked(user_id="bob"))
    found: list[str] = []
    cursor: str | None = None
    for size in (2, 2, 1):
        items, cursor = await documents.lists.page(user_id="alice", limit=2, cursor=cursor)
        assert len(items) == size
        found += [item["document_id"] for item in items]
    assert cursor is None
    assert found == [str(version.document_id) for version in reversed(made)]
    everybodys, _ = await documents.lists.page(user_id=None, limit=10, cursor=None)
    assert len(everybodys) == 6
    assert await documents.lists.get(theirs.document_id, of="alice") is None
    for wrong in ("zzz", "W10", "WyIyMDI2IiwgIngiXQ"):
        with pytest.raises(InvalidCursorError):
            await documents.lists.page(user_id=None, limit=1, cursor=wrong)
