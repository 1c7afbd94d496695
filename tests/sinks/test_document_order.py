"""What comes before what, on a real Postgres: ends of jobs, deletions, chunk sizes, and a Kafka that was lost."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from processors.documents.document_ports import ChunkSize, Same, Version
from processors.embed_chunks import embed_chunks
from processors.errors import PermanentError
from processors.partition_document import partition_document
from processors.stage import Drop, Emit
from schemas.envelope import Attributes, Envelope
from schemas.events import ChunksPrepared, Job, JobFinished
from schemas.ids import uuid7
from sinks.documents import PostgresDocuments
from sinks.payloads import PayloadStore
from sinks.pool import Pool
from sinks.postgres import OutcomeSink, PendingSink
from sinks.unfinished import UnfinishedJobs
from tests.document_fakes import FakeEmbedder, FakeFiles, FakeParser, FakeTeller, FakeVectors, FakeWriter, LineChunker
from tests.factories import (
    chunks_prepared,
    document_received,
    document_request,
    job,
    job_admitted,
    job_finished,
)
from tests.sinks.test_documents import NO_TIME, Documents, documents, pool

__all__ = ["documents", "pool"]  # fixtures
pytestmark = pytest.mark.integration
OF_NOW = ChunkSize(512, 64)


def asked(after_s: float = 0) -> Job:
    """A job for a document, accepted just now."""
    return job(kind="document", accepted_at=datetime.now(UTC) + timedelta(seconds=after_s))


async def admitted(pool: Pool, of: Job) -> None:
    event = job_admitted(job=of, request=document_request())
    await PendingSink(pool).write([Envelope(Attributes("a", "/s", "t"), event)])


async def ended(documents: Documents, of: Job, code: str | None = None) -> None:
    finished = job_finished(job=of, code=code) if code else job_finished(job=of)
    await OutcomeSink(documents.pool).write([Envelope(Attributes("e", "/s", "t"), finished)])


async def statuses(documents: Documents) -> list[tuple[str, str | None]]:
    items, _ = await documents.lists.page(user_id="alice", limit=9, cursor=None)
    return [(item["status"], item.get("error", {}).get("code")) for item in items]


async def test_a_version_whose_job_was_cancelled_before_its_last_batch_is_never_seen(documents: Documents) -> None:
    of = asked()
    version = await documents.version(of)
    await documents.ledger.partitioned(version, chunks=2, batches=1, pages=1)
    await ended(documents, of, "cancelled")
    with pytest.raises(PermanentError) as raised:
        await documents.embed(version, 0)
    assert raised.value.code == "document-ended"
    assert await documents.seen() == []


async def test_a_version_that_was_done_while_its_job_was_being_cancelled_gives_way_to_the_one_before(
    documents: Documents,
) -> None:
    first, second = asked(), asked(1)
    old = await documents.ingest(first)
    await ended(documents, first)
    await admitted(documents.pool, second)
    new = await documents.ingest(second, "b")
    assert await documents.seen() == [new.version_id]
    assert await documents.old.with_vectors(replaced_kept=NO_TIME) == []  # nobody knows yet which of them stays
    await ended(documents, second, "cancelled")  # the first word in the log
    await ended(documents, second)
    assert await documents.old.with_vectors(replaced_kept=NO_TIME) == []
    assert await documents.old.settle() == 1
    assert await documents.seen() == [old.version_id]
    assert await statuses(documents) == [("ready", "cancelled")]
    assert [found.version_id for found in await documents.old.with_vectors()] == [new.version_id]
    assert await documents.old.settle() == 0
    assert isinstance(await documents.begin(asked(2)), Same)  # the content of the old one is there


async def test_of_a_first_version_whose_job_was_cancelled_nothing_is_seen(documents: Documents) -> None:
    of = asked()
    version = await documents.ingest(of)
    await ended(documents, of, "expired")
    assert await documents.old.settle() == 1
    assert (await documents.seen(), await statuses(documents)) == ([], [("failed", "expired")])
    assert await documents.ledger.collections("alice") == []
    with pytest.raises(PermanentError, match="ended before"):
        await documents.ledger.finish(version.version_id)


async def test_a_version_that_another_job_has_found_there_stays(documents: Documents) -> None:
    first = asked()
    version = await documents.ingest(first)
    assert isinstance(await documents.begin(asked(1)), Same)
    await ended(documents, first, "cancelled")
    assert await documents.old.settle() == 0
    assert await documents.seen() == [version.version_id]


async def test_vectors_of_a_replaced_version_go_once_the_job_of_the_newer_one_has_its_end(documents: Documents) -> None:
    first, second = asked(), asked(1)
    old = await documents.ingest(first)
    await ended(documents, first)
    new = await documents.ingest(second, "b")
    assert await documents.old.with_vectors(replaced_kept=NO_TIME) == []  # not even its row is there yet
    await ended(documents, second)
    assert await documents.old.settle() == 0
    assert [found.version_id for found in await documents.old.with_vectors(replaced_kept=NO_TIME)] == [old.version_id]
    assert await documents.seen() == [new.version_id]


@pytest.mark.parametrize("code", ["rate-limited", "quarantined"])
async def test_a_refusal_that_yields_to_what_was_admitted_before_fails_no_version(
    documents: Documents, code: str
) -> None:
    of = asked()
    version = await documents.version(of)
    await ended(documents, of, code)
    assert await documents.old.fail_ended() == 0
    await documents.ledger.partitioned(version, chunks=2, batches=1, pages=1)
    assert (await documents.embed(version, 0)).state == "active"
    assert await documents.old.settle() == 0


# --- deletions ---


async def put_up(documents: Documents, claimed_by: Job | None = None) -> UUID:
    """A file; what a job claims, it claims just before it is published."""
    store, payload_id = PayloadStore(documents.pool), uuid7()
    await store.begin_file(payload_id, user_id="alice", media_type="text/plain")
    await store.complete_file(payload_id, user_id="alice", sha256="0" * 64)
    if claimed_by is not None:
        assert await store.claim_file(payload_id, user_id="alice", job_id=claimed_by.job_id)
    return payload_id


async def deleted(documents: Documents, source: str = "handbook") -> None:
    version = await documents.ingest(asked(), source=source)
    assert await documents.lists.delete(version.document_id, of="alice")


async def test_a_document_that_is_ingested_again_right_after_its_deletion_is_made_though_clocks_say_before(
    documents: Documents,
) -> None:
    await deleted(documents)
    again = asked(-3600)  # by a broker whose clock is an hour behind the database's
    assert (await documents.ingest(again, payload_id=await put_up(documents, again))).state == "active"
    await deleted(documents, "other")
    by_topic, file = asked(-3600), await put_up(documents)
    assert (await documents.ingest(by_topic, payload_id=file, source="other")).state == "active"


async def test_a_job_from_before_a_deletion_brings_nothing_back_though_clocks_say_after(documents: Documents) -> None:
    before = asked(3600)  # by a broker whose clock is an hour ahead
    payload_id = await put_up(documents, before)
    await deleted(documents)
    with pytest.raises(PermanentError) as raised:
        await documents.version(before, payload_id=payload_id)
    assert raised.value.code == "document-deleted"


async def test_of_a_file_that_was_there_for_any_job_the_times_tell(documents: Documents) -> None:
    payload_id = await put_up(documents)
    await deleted(documents)
    with pytest.raises(PermanentError) as raised:
        await documents.version(asked(-60), payload_id=payload_id)
    assert raised.value.code == "document-deleted"
    assert (await documents.ingest(asked(60), payload_id=payload_id)).state == "active"


# --- chunk sizes ---


@pytest.mark.parametrize("size", [ChunkSize(256, 64), ChunkSize(512, 0)])
async def test_the_same_content_in_chunks_of_another_size_is_a_new_version(
    documents: Documents, size: ChunkSize
) -> None:
    old = await documents.ingest(asked())
    assert isinstance(await documents.begin(asked(1)), Same)
    again = asked(2)
    new = await documents.ingest(again, size=size)
    assert (new.state, new.size) == ("active", size)
    assert await documents.seen() == [new.version_id]
    assert new.version_id != old.version_id
    assert isinstance(await documents.begin(asked(3), size=size), Same)
    assert (await documents.version(again, size=OF_NOW)).size == size  # once begun, it is cut as it was begun


async def test_what_was_ingested_before_sizes_were_kept_is_taken_as_it_is(documents: Documents) -> None:
    of = asked()
    await documents.ingest(of)
    await documents.value("UPDATE document_versions SET chunking = NULL")
    assert (await documents.version(of)).size is None
    assert isinstance(await documents.begin(asked(1), size=ChunkSize(128, 0)), Same)


# --- Kafka lost, Postgres lost ---


class Stages:
    """Both of them over a real ledger, with a document of 70 chunks in three batches."""

    def __init__(self, pool: Pool) -> None:
        self.ledger, self.provider, self.vectors = PostgresDocuments(pool), FakeEmbedder(), FakeVectors()
        self.size = OF_NOW
        self.cut_to: list[ChunkSize] = []

    def chunker(self, provider: str, size: ChunkSize) -> Any:
        self.cut_to.append(size)
        return LineChunker(provider, size)

    async def partition(self, of: Job) -> tuple[Any, list[ChunksPrepared]]:
        writer = FakeWriter()
        result = await partition_document(
            document_received(job=of), files=FakeFiles(), parser=FakeParser(pages=10, lines=7),
            chunk_size=lambda _: self.size, chunking=self.chunker, providers={"openai": self.provider},
            ledger=self.ledger, writer=writer, progress=FakeTeller(), now=datetime.now(UTC),
        )  # fmt: skip
        return result, writer.written

    async def embed(self, batch: ChunksPrepared) -> Any:
        return await embed_chunks(
            batch, providers={"openai": self.provider}, vectors=cast("Any", self.vectors), ledger=self.ledger,
            progress=FakeTeller(), max_chunks=60, max_tokens=40_000, now=datetime.now(UTC),
        )  # fmt: skip


async def test_a_document_whose_batches_were_lost_with_kafka_is_read_again_and_ends(pool: Pool) -> None:
    of, stages, unfinished = asked(), Stages(pool), UnfinishedJobs(pool)
    await admitted(pool, of)
    result, batches = await stages.partition(of)
    assert (result, len(batches)) == (Drop("partitioned"), 3)
    assert await stages.embed(batches[0]) == Drop("counted")
    async with pool.connection() as connection:  # another one waits for its provider
        await connection.execute(
            "INSERT INTO due_events (due_id, job_id, run, stage, code, attempts, topic, key, headers, value, due_at)"
            " VALUES ('d', $1, 1, 'embed_chunks', 'provider-http-429', '[]', 't', '', '[]', '', now())",
            of.job_id,
        )
    # Kafka is gone; `assistant recover --kafka` publishes the job anew, by a worker with another chunk size.
    assert await unfinished.page(after=None, limit=10) == [of.job_id]
    (renewed,) = await unfinished.renew([of.job_id], now=datetime.now(UTC))
    assert renewed.request is not None
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM due_events") == 0  # it comes again by the topic
    stages.size = ChunkSize(64)
    result, again = await stages.partition(renewed.job)
    assert (result, stages.cut_to) == (Drop("partitioned"), [OF_NOW, OF_NOW])
    assert [batch.chunks for batch in again] == [batch.chunks for batch in batches]
    outcomes = [await stages.embed(batch) for batch in again]
    assert outcomes[:2] == [Drop("counted"), Drop("counted")]
    assert isinstance(outcomes[2], Emit)
    (finished,) = outcomes[2].events
    assert isinstance(finished, JobFinished)
    assert finished.result is not None
    assert (finished.status, finished.result["num_chunks"]) == ("completed", 70)
    assert [len(call) for call in stages.provider.calls] == [32, 32, 6]  # the first batch was paid for once
    assert len(stages.vectors.stored[batches[0].version_id]) == 70


async def test_a_job_that_had_all_its_batches_when_kafka_was_lost_ends_at_once(pool: Pool) -> None:
    of, stages, unfinished = asked(), Stages(pool), UnfinishedJobs(pool)
    await admitted(pool, of)
    _, batches = await stages.partition(of)
    for batch in batches:
        await stages.embed(batch)  # and its outcome got lost
    await unfinished.renew([of.job_id], now=datetime.now(UTC))
    result, again = await stages.partition(of)
    assert isinstance(result, Emit)
    assert again == []


async def test_batches_of_a_document_that_postgres_has_lost_end_their_job_and_say_so(documents: Documents) -> None:
    version: Version = await documents.version(asked())
    batch = documents.batch(version, 0)
    await documents.value("DELETE FROM documents")
    with pytest.raises(PermanentError, match="database was restored") as raised:
        await documents.ledger.wanted(batch, model="m1")
    assert raised.value.code == "document-lost"
    stages = Stages(documents.pool)
    result = await stages.embed(chunks_prepared(version_id=version.version_id, document_id=version.document_id))
    assert isinstance(result, Emit)
    assert stages.provider.calls == []
