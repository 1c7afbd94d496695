"""Images and documents that come with a request: stored before anything is published, and let go."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from ingress.access.standings import FLOOD_FACTOR
from ingress.chat import status_of
from ingress.files import ReceivedFile
from ingress.http.problems import Problem
from ingress.publisher import NotAcceptedError
from schemas.envelope import Record
from schemas.events import JobRequested, UserUpdated
from schemas.requests import ChatRequest, EmbeddingRequest, ImageReference
from sinks.payloads import PayloadQuotaError
from tests.factories import chat_request, document_request, user_updated
from tests.ingress.desk import Desk, FakeStore, Seen
from tests.pictures import GIF


async def test_while_postgres_is_away_prompts_with_images_are_refused_and_others_are_not(desk: Desk) -> None:
    seen = Seen()
    for upload in (seen.upload, None):  # one that came with it, and one that was uploaded before
        with pytest.raises(Problem) as caught:
            await desk.submissions.answered(user_updated(), seen.request(), upload=upload)
        assert (caught.value.status, caught.value.code) == (503, "not-accepted")
        assert caught.value.headers["Retry-After"]
    assert desk.publisher.published == []
    assert (seen.left, seen.upload.content) == (1, b"")
    await desk.ask(user_updated())
    await desk.database.close()


async def test_an_image_is_stored_before_anything_is_published_and_let_go(desk: Desk) -> None:
    seen, store = Seen(), FakeStore()
    desk.images._store = store
    publish = desk.publisher.publish

    async def after_the_image(record: Record) -> None:
        assert [payload.content for payload in store.kept] == [GIF]
        await publish(record)

    desk.publisher.publish = after_the_image  # type: ignore[method-assign]  # a look at the moment
    job_id, *_ = await desk.submissions.accepted(user_updated(), seen.request(), callback_url=None, upload=seen.upload)
    (record,) = desk.publisher.published
    assert record.value is not None
    request = JobRequested.model_validate_json(record.value).request
    assert isinstance(request, ChatRequest)
    assert request.image == seen.upload.reference
    assert b"GIF" not in record.value
    (kept,) = store.kept
    assert (kept.job_id, kept.user_id, kept.payload_id) == (job_id, "alice", seen.upload.payload_id)
    assert (seen.left, seen.upload.content, store.deleted) == (1, b"", [])


async def test_an_image_of_what_was_not_accepted_is_taken_back(desk: Desk) -> None:
    seen, store = Seen(), FakeStore()
    desk.images._store = store

    async def refuse(record: Record) -> None:
        raise NotAcceptedError("Kafka is away")

    desk.publisher.publish = refuse  # type: ignore[method-assign]  # a broker that is away
    with pytest.raises(Problem) as caught:
        await desk.submissions.answered(user_updated(), seen.request(), upload=seen.upload)
    assert caught.value.code == "not-accepted"
    assert store.deleted == [seen.upload.payload_id]


async def test_who_has_too_many_images_and_who_has_not_this_one_is_refused(desk: Desk) -> None:
    seen = Seen()
    desk.images._store = FakeStore(PayloadQuotaError(1_000))
    with pytest.raises(Problem) as caught:
        await desk.submissions.answered(user_updated(), seen.request(), upload=seen.upload)
    assert (caught.value.status, caught.value.code, seen.left) == (429, "too-many-payloads", 1)
    desk.images._store = FakeStore()
    with pytest.raises(Problem) as caught:
        await desk.submissions.answered(user_updated(), seen.request())
    assert (caught.value.status, caught.value.code) == (400, "no-such-payload")
    assert desk.publisher.published == []
    desk.images._store = FakeStore(known=True)
    await desk.submissions.accepted(user_updated(), seen.request(), callback_url=None)
    assert len(desk.publisher.published) == 1


async def test_texts_to_embed_have_no_image(desk: Desk) -> None:
    request = EmbeddingRequest(texts=("a",))
    await desk.submissions.accepted(user_updated(), request, callback_url=None)
    assert len(desk.publisher.published) == 1


def test_a_reference_needs_no_more_than_its_id() -> None:
    assert chat_request(image=ImageReference(payload_id=UUID(int=1))).image is not None


def received(**more: Any) -> ReceivedFile:
    return ReceivedFile(uuid4(), "a.txt", 3, "a" * 64, datetime.now(UTC), **more)


def expires_after(record: Record) -> float | None:
    return JobRequested.model_validate_json(record.value or b"").expires_after


async def test_a_document_is_waited_for_as_long_as_documents_take(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed: list[UUID] = []

    async def claim(user: UserUpdated, file: ReceivedFile, job_id: UUID) -> None:
        claimed.append(job_id)

    monkeypatch.setattr(desk.files, "claim", claim)
    user = user_updated()
    desk.submissions.check_ahead(user, ())
    job_id, *_ = await desk.submissions.accepted(user, document_request(), callback_url=None, upload=received())
    assert claimed == [job_id]
    waiting = asyncio.create_task(desk.submissions.answered(user, document_request(), upload=received()))
    while len(desk.publisher.published) < 2:
        await asyncio.sleep(0)
    waiting.cancel()
    assert [expires_after(record) for record in desk.publisher.published] == [None, 7200]


async def test_a_file_is_claimed_before_anything_is_published_and_let_go_where_it_was_not_accepted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Problem) as caught:  # its database is away
        await desk.submissions.accepted(user_updated(), document_request(), callback_url=None, upload=received())
    assert (caught.value.status, caught.value.code) == (503, "not-accepted")
    assert desk.publisher.published == []

    async def claim(user: UserUpdated, file: ReceivedFile, job_id: UUID) -> None:
        file.is_claimed = True

    async def publish(record: Record) -> None:
        raise NotAcceptedError("Kafka is away")

    monkeypatch.setattr(desk.files, "claim", claim)
    monkeypatch.setattr(desk.publisher, "publish", publish)
    file = received()
    with pytest.raises(Problem):
        await desk.submissions.accepted(user_updated(), document_request(), callback_url=None, upload=file)
    assert not file.is_claimed  # so that whoever received it forgets it


async def test_an_upload_is_one_call_and_is_refused_before_it_is_read(desk: Desk) -> None:
    user = user_updated(rate_limit_requests=1)
    for _ in range(FLOOD_FACTOR):
        desk.submissions.check_ahead(user, ())
    with pytest.raises(Problem, match="far more"):
        desk.submissions.check_ahead(user, ())
    with pytest.raises(Problem, match="not present"):
        desk.submissions.check_ahead(user_updated(user_id="bob"), ("gemini",))
    desk.submissions.draining = True
    with pytest.raises(Problem, match="stopping"):
        desk.submissions.check_ahead(user_updated(user_id="bob"), ())


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("document-unreadable", 422), ("document-too-large", 413), ("no-such-payload", 400), ("cancelled", 409),
        ("vectors-unavailable", 503), ("provider-http-401", 502),
    ],
)  # fmt: skip
def test_a_document_that_could_not_be_ingested_has_a_status_of_its_own(code: str, status: int) -> None:
    assert status_of(code) == status
