"""Adapters on a real Postgres: whose they are, which try has the row, and whose turn it is on a shared server."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from processors.errors import RetryableError
from processors.learning.adapter_ports import NotBegunError
from processors.learning.training_ports import HeldOutAnswer, LossPoint, TrainedAdapter
from schemas.events import Job
from schemas.requests import ExampleRequest, TrainingRequest
from sinks.adapters import AdapterStore
from sinks.examples import ExampleStore
from sinks.pool import Pool
from tests.factories import job

pytestmark = pytest.mark.integration


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=4)
    yield pool
    await pool.close()


def training(user_id: str = "alice") -> Job:
    return job(kind="training", user_id=user_id)


async def begun(store: AdapterStore, of: Job, name: str = "polite", *, provider: str = "local") -> Any:
    request = TrainingRequest(name=name)
    return await store.begin(of, request, provider=provider, is_shared=provider == "qwen3vl")


def trained(adapter_id: UUID) -> TrainedAdapter:
    answer = HeldOutAnswer(instruction="i", input="", expected="e", before="b", after="a")
    return TrainedAdapter(
        adapter_id=str(adapter_id), losses=[LossPoint(step=1, loss=2.5), LossPoint(step=2, loss=1.5)],
        held_out_loss_before=3.0, held_out_loss_after=1.0, answers=[answer],
    )  # fmt: skip


async def made(store: AdapterStore, of: Job, name: str = "polite", *, provider: str = "local") -> UUID:
    adapter_id: UUID = await begun(store, of, name, provider=provider)
    assert await store.finish(adapter_id, trained(adapter_id)) is not None
    return adapter_id


async def silent(pool: Pool, adapter_id: UUID) -> None:
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE adapters SET beat_at = now() - interval '2 minutes' WHERE adapter_id = $1", adapter_id
        )


async def test_an_adapter_is_its_users_alone(pool: Pool) -> None:
    store = AdapterStore(pool)
    adapter_id = await begun(store, training())
    assert await store.ready("alice") == []  # not yet
    assert await store.beat(adapter_id, [LossPoint(step=1, loss=2.5)], examples=4, held_out=1)
    assert [row.status for row in await store.all_of("alice")] == ["training"]
    summary = await store.finish(adapter_id, trained(adapter_id))
    assert summary is not None
    assert (summary["loss_first"], summary["loss_last"], summary["steps"], summary["examples"]) == (2.5, 1.5, 2, 4)
    (found,) = await store.ready("alice")
    assert (found.adapter_id, found.name, found.provider) == (adapter_id, "polite", "local")
    row, answers = await store.get("alice", "polite") or (None, [])
    assert row is not None
    assert row.view()["losses"] == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 1.5}]
    assert answers[0]["after"] == "a"
    for nothing in (store.ready("bob"), store.all_of("bob")):
        assert await nothing == []
    assert await store.get("bob", "polite") is None
    assert await store.delete("bob", "polite") is None
    await made(store, training("bob"))  # of the same name
    assert await store.delete("alice", "polite") == ("ready", row.job_id)
    assert await store.ready("alice") == []
    assert len(await store.ready("bob")) == 1
    assert await store.forgotten(["local"], limit=9) == [(adapter_id, "local")]
    assert await store.forgotten(["qwen3vl"], limit=9) == []
    await store.is_gone(adapter_id)
    assert await store.forgotten(["local"], limit=9) == []


async def test_the_newest_try_has_the_row_and_what_earlier_ones_left_is_forgotten(pool: Pool) -> None:
    store, of = AdapterStore(pool), training()
    first = await begun(store, of)
    second = await begun(store, of)  # the same job, delivered again
    assert first != second
    assert not await store.beat(first, [], examples=1, held_out=1)
    assert await store.finish(first, trained(first)) is None
    await store.fail(first, "interrupted", "it was")  # changes nothing
    assert await store.beat(second, [], examples=1, held_out=1)
    assert await store.is_anyones(of, "polite")
    assert [one[0] for one in await store.forgotten(["local"], limit=9)] == [first]
    assert await store.finish(second, trained(second)) is not None
    again = await begun(store, of)  # its outcome was not told: it is not made twice
    assert again["status"] == "ready"
    assert [found.adapter_id for found in await store.ready("alice")] == [second]


async def test_a_try_after_its_row_was_deleted_is_not_forgotten_with_it(pool: Pool) -> None:
    store, of = AdapterStore(pool), training()
    first = await begun(store, of)
    await store.delete("alice", "polite")
    assert await store.forgotten(["local"], limit=9) == [(first, "local")]  # and is deleted soon, from a list or not
    assert await begun(store, of) != first


async def test_a_name_that_is_taken_is_kept_and_one_that_came_to_nothing_is_free(pool: Pool) -> None:
    store = AdapterStore(pool, max_per_user=2)
    first = await begun(store, training())
    with pytest.raises(NotBegunError, match="is being trained"):
        await begun(store, training())
    await silent(pool, first)
    assert [row.status for row in await store.all_of("alice")] == ["interrupted"]
    second = await begun(store, training())
    await store.fail(second, "training-failed", "no memory")
    (row,) = await store.all_of("alice")
    assert (row.status, row.error) == ("failed", {"code": "training-failed", "message": "no memory"})
    await made(store, training())
    with pytest.raises(NotBegunError, match="is there") as caught:
        await begun(store, training())
    assert caught.value.code == "adapter-exists"
    await made(store, training(), "other")
    with pytest.raises(NotBegunError) as caught:
        await begun(store, training(), "third")
    assert caught.value.code == "too-many-adapters"


async def test_a_shared_server_has_one_adapter_and_trains_one_at_a_time(pool: Pool) -> None:
    store = AdapterStore(pool)
    assert await store.last_trained_by("qwen3vl") is None
    await made(store, training(), provider="qwen3vl")
    await made(store, training(), "elsewhere")
    bobs = await begun(store, training("bob"), provider="qwen3vl")
    # From the beginning on, for nobody knows what the server answers with.
    assert [found.name for found in await store.ready("alice")] == ["elsewhere"]
    assert await store.last_trained_by("qwen3vl") == "bob"
    with pytest.raises(RetryableError) as caught:
        await begun(store, training("carol"), provider="qwen3vl")
    assert (caught.value.code, caught.value.retry_after_s) == ("trainer-busy", 30.0)
    await silent(pool, bobs)
    carols = await begun(store, training("carol"), provider="qwen3vl")
    assert not await store.beat(bobs, [], examples=1, held_out=1)
    assert await store.finish(bobs, trained(bobs)) is None
    assert await store.finish(carols, trained(carols)) is not None
    assert await store.last_trained_by("qwen3vl") == "carol"


async def test_the_newest_examples_are_learnt_from_as_many_as_there_is_room_for(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ExampleStore(pool, max_lessons=4)
    for number in range(6):
        request = ExampleRequest(instruction="Say it.", output=f"number {number}")
        await store.add(job(kind="example"), UUID(int=number + 1), request)
    used = await store.lessons("alice")
    assert ([one.output[-1] for one in used.examples], used.total) == (["2", "3", "4", "5"], 6)
    monkeypatch.setattr("sinks.examples.MAX_LESSON_CHARS", 2 * len("Say it.number 0"))
    assert [one.output[-1] for one in (await store.lessons("alice")).examples] == ["4", "5"]
    assert (await store.lessons("bob")).examples == []
