from typing import Any

import pytest

from processors.documents.document_ports import Collection
from processors.embed_chunks import embed_chunks
from processors.errors import PermanentError, RetryableError
from processors.stage import Drop, Emit
from schemas.events import ChunksPrepared, JobFinished
from tests.document_fakes import FakeEmbedder, FakeTeller, FakeVectors, MemoryLedger
from tests.factories import NOW, chunk, chunks_prepared


class Scene:
    """The stage with its ports, and a document of so many batches."""

    def __init__(self, batches: int | None = 2) -> None:
        self.provider, self.vectors, self.teller = FakeEmbedder(), FakeVectors(), FakeTeller()
        self.ledger = MemoryLedger(batches=batches)

    def batch(self, number: int = 0, chunks: int = 3, **overrides: Any) -> ChunksPrepared:
        version = self.ledger.version
        made = tuple(chunk(number * 32 + n) for n in range(chunks))
        fields: dict[str, Any] = {
            "document_id": version.document_id, "version_id": version.version_id, "batch": number, "chunks": made,
        }  # fmt: skip
        return chunks_prepared(**fields | overrides)

    async def run(self, event: ChunksPrepared, **more: Any) -> Any:
        limits: dict[str, Any] = {"max_chunks": 60, "max_tokens": 40_000} | more
        ports: dict[str, Any] = {
            "providers": {"openai": self.provider}, "vectors": self.vectors, "ledger": self.ledger,
            "progress": self.teller,
        }  # fmt: skip
        return await embed_chunks(event, now=NOW, **ports, **limits)


def outcome(result: Any) -> JobFinished:
    assert isinstance(result, Emit)
    (finished,) = result.events
    assert isinstance(finished, JobFinished)
    return finished


async def test_the_last_batch_of_a_document_ends_its_job() -> None:
    scene = Scene()
    assert await scene.run(scene.batch(1)) == Drop("counted")  # in whatever order they come
    finished = outcome(await scene.run(event := scene.batch(0)))
    version = scene.ledger.version
    assert finished.result == {
        "status": "ok", "document_id": str(version.document_id), "num_chunks": version.chunks,
        "version_id": str(version.version_id), "pages": version.pages,
        "meta": {"provider": "openai", "job_id": str(event.job.job_id)},
    }  # fmt: skip
    assert sorted(scene.vectors.stored[version.version_id]) == [0, 1, 2, 32, 33, 34]
    assert scene.vectors.collections == {Collection("openai", "m1", 4)}
    assert [told.chunks for told in scene.teller.told] == [3, 6]


async def test_the_same_batch_again_costs_nothing_and_changes_nothing() -> None:
    scene = Scene()
    for _ in range(2):
        assert await scene.run(scene.batch(0)) == Drop("counted")
    assert len(scene.provider.calls) == 1
    assert scene.ledger.counted == {0: 3}


async def test_a_batch_that_was_counted_but_not_told_of_still_ends_its_job() -> None:
    scene = Scene(batches=1)
    scene.ledger.counted = {0: 3}  # and then its worker died
    assert outcome(await scene.run(scene.batch(0))).status == "completed"
    assert outcome(await scene.run(scene.batch(0))).status == "completed"  # and once more, it is active
    assert scene.provider.calls == []


async def test_calls_are_bounded_in_texts_and_tokens() -> None:
    scene = Scene()
    sizes = [10, 10, 10, 90, 10, 200, 10]
    chunks = tuple(chunk(n, tokens=tokens, text=str(n)) for n, tokens in enumerate(sizes))
    await scene.run(scene.batch(chunks=1).model_copy(update={"chunks": chunks}), max_chunks=2, max_tokens=100)
    assert scene.provider.calls == [["0", "1"], ["2", "3"], ["4"], ["5"], ["6"]]
    stored = scene.vectors.stored[scene.ledger.version.version_id]
    assert [one.chunk.text for _, one in sorted(stored.items())] == [str(n) for n in range(7)]


async def test_a_failure_of_the_provider_is_raised_and_nothing_is_counted() -> None:
    scene = Scene()
    for error in (RetryableError("provider-http-429", "slow down"), PermanentError("provider-http-401", "the key")):
        scene.provider.error = error
        with pytest.raises(type(error)):
            await scene.run(scene.batch(0))
    assert scene.ledger.counted == {}
    assert not scene.vectors.stored
    with pytest.raises(PermanentError, match="no key or address of gemini"):
        await scene.run(scene.batch(0, provider="gemini"))


async def test_of_a_document_that_was_deleted_nothing_is_paid_for() -> None:
    scene = Scene()
    scene.ledger.state = "deleted"
    finished = outcome(await scene.run(scene.batch(0)))
    assert finished.error is not None
    assert finished.error.code == "document-deleted"
    assert scene.provider.calls == []


@pytest.mark.parametrize("state", ["deleted", "failed", "replaced"])
async def test_what_was_stored_for_a_version_that_is_gone_is_taken_back(state: str) -> None:
    scene = Scene()
    scene.vectors.on_store = lambda: setattr(scene.ledger, "state", state)
    await scene.run(event := scene.batch(0))
    assert scene.vectors.deleted == [("alice", Collection("openai", "m1", 4), event.version_id)]
    assert not scene.vectors.stored
    assert scene.ledger.counted == {}
    assert scene.teller.told == []


async def test_another_embedding_model_than_the_documents_ends_its_job_before_anything_is_paid_for() -> None:
    scene = Scene()
    scene.provider.embedding_model = "m2"
    finished = outcome(await scene.run(scene.batch(0)))
    assert finished.error is not None
    assert finished.error.code == "document-model-changed"
    assert scene.provider.calls == []
