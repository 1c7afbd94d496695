"""What the ingress refuses before anything is published."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from ingress import standings
from ingress.backpressure import Backpressure
from ingress.chat import status_of
from ingress.files import Files, ReceivedFile
from ingress.follower import Follower
from ingress.idempotency import Idempotency
from ingress.images import Images
from ingress.problems import Problem
from ingress.publisher import NotAcceptedError, Publisher
from ingress.standings import FLOOD_FACTOR, Standings, UserRules
from ingress.submission import Rules, Submissions
from ingress.uploads import Place, Upload, upload_of
from processors.usage import Usage
from schemas.envelope import Record
from schemas.events import JobRequested, ProviderOffer, UserUpdated
from schemas.generation import GenerationConfig
from schemas.ids import JobIds
from schemas.requests import AnyRequest, ChatRequest, EmbeddingRequest, ImageReference, RagRequest, SearchRequest
from sinks.payloads import Payload, PayloadQuotaError, PayloadStore
from sinks.pool import Pool
from tests.conftest import SECRET
from tests.factories import NOW, chat_request, document_request, user_updated
from tests.pictures import GIF
from transport.clients import KafkaAccess

NOWHERE = KafkaAccess("127.0.0.1:1")
WINDOW_S, USER_LIMIT, ADMIN_LIMIT = 60, 5, 10


class RecordingPublisher(Publisher):
    """Has brokers that answer at once. `published`: what was handed over."""

    def __init__(self) -> None:
        super().__init__(NOWHERE, timeout_s=1)
        self.published: list[Record] = []

    async def publish(self, record: Record) -> None:
        self.published.append(record)


class Desk:
    """Submissions with a clock that is moved by hand."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, callback_allow_private: bool = False, max_pending: int | None = None
    ) -> None:
        rules = Rules(
            topic="job-requested", allowed_providers=("openai", "local"), default_timeout_s=30, admission_wait_s=0,
            expires_after_s=3600, document_expires_after_s=7200, callback_allow_private=callback_allow_private,
        )  # fmt: skip
        self.usage = Usage()
        of_users = UserRules(window_s=WINDOW_S, user_limit=USER_LIMIT, admin_limit=ADMIN_LIMIT, max_pending=max_pending)
        self.standings = Standings(of_users, self.usage)
        self.publisher, self.now = RecordingPublisher(), 1000.0
        self.database = Pool("postgresql://nobody:nothing@127.0.0.1:1/nothing", size=1)
        self.images = Images(PayloadStore(self.database), user_bytes=1_000)
        self.files = Files(PayloadStore(self.database), user_bytes=1_000, max_upload_mb=1)
        self.offers: dict[str, list[ProviderOffer]] = {}
        follower = Follower(NOWHERE, progressed="job-progressed", finished="job-finished", store=None)
        monkeypatch.setattr(standings, "monotonic", lambda: self.now)
        nobody: Any = None  # no request here has a key
        self.submissions = Submissions(
            self.publisher, follower, JobIds([SECRET]), rules, present_providers=lambda: ["openai"],
            cancel_requests=nobody,
            offers=lambda: self.offers,
            images=self.images,
            files=self.files,
            standings=self.standings,
            idempotency=Idempotency(nobody, publish_timeout_s=1),
            backpressure=Backpressure(max_wait_s=300, allowed=("openai",), default=None),
        )  # fmt: skip

    async def ask(self, user: UserUpdated, callback_url: str | None = None) -> UUID:
        job_id, *_ = await self.submissions.accepted(user, chat_request(), callback_url=callback_url)
        return job_id

    async def refused(self, user: UserUpdated, callback_url: str | None = None) -> Problem:
        before = len(self.publisher.published)
        with pytest.raises(Problem) as caught:
            await self.ask(user, callback_url)
        assert len(self.publisher.published) == before
        return caught.value


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


@pytest.mark.parametrize(
    ("user", "limit"),
    [
        (user_updated(), USER_LIMIT), (user_updated(role="admin"), ADMIN_LIMIT),
        (user_updated(rate_limit_requests=2), 2), (user_updated(rate_limit_requests=0), 1),
    ],
)  # fmt: skip
async def test_far_above_the_limit_nothing_is_published_until_the_window_is_over(
    desk: Desk, user: UserUpdated, limit: int
) -> None:
    for _ in range(FLOOD_FACTOR * limit):
        await desk.ask(user)
    desk.now += 20
    problem = await desk.refused(user)
    assert (problem.status, problem.code) == (429, "rate-limited")
    assert problem.headers["Retry-After"] == "40"
    assert problem.headers["RateLimit"] == '"default";r=0;t=40'
    assert problem.extra == {"retry_after_s": 40}
    await desk.ask(user_updated(user_id="somebody-else"))
    desk.now += 40
    await desk.ask(user)


async def test_the_count_of_floods_has_a_bound(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standings, "MAX_FLOOD_USERS", 10)
    for n in range(50):
        await desk.ask(user_updated(user_id=f"user-{n}"))
        assert len(desk.standings._seen) <= 11


async def test_a_replica_that_is_stopping_takes_nothing_more(desk: Desk) -> None:
    await desk.ask(user_updated())
    desk.submissions.draining = True
    problem = await desk.refused(user_updated())
    assert (problem.status, problem.code) == (503, "not-accepted")
    assert "stopping" in problem.detail
    assert int(problem.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    "url", ["http://example.com/hook", "https://10.0.0.1/hook", "https://169.254.169.254/", "https://u:p@example.com/"]
)
async def test_a_callback_that_is_never_called_is_refused_at_once(desk: Desk, url: str) -> None:
    problem = await desk.refused(user_updated(), url)
    assert (problem.status, problem.code) == (400, "callback-refused")
    assert problem.detail.startswith("callback_url: ")


async def test_a_callback_travels_with_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, callback_allow_private=True)
    await desk.ask(user_updated(), "http://127.0.0.1:8080/hook")
    (record,) = desk.publisher.published
    assert JobRequested.model_validate_json(record.value or b"").callback_url == "http://127.0.0.1:8080/hook"


async def test_a_job_that_is_listened_to_is_good_for_as_long_as_a_call_that_waits(desk: Desk) -> None:
    told: list[tuple[UUID, bool]] = []

    def follow(job_id: UUID, is_new: bool) -> None:
        assert desk.publisher.published == []  # or something of it might be missed
        told.append((job_id, is_new))

    job_id, *_ = await desk.submissions.accepted(
        user_updated(), chat_request(timeout=7), callback_url=None, follow=follow
    )
    (record,) = desk.publisher.published
    assert JobRequested.model_validate_json(record.value or b"").expires_after == 7
    assert told == [(job_id, True)]


async def test_nothing_is_published_where_nobody_can_listen(desk: Desk) -> None:
    def follow(job_id: UUID, is_new: bool) -> None:
        raise Problem(503, "too-many-listeners", "not now")

    with pytest.raises(Problem):
        await desk.submissions.accepted(user_updated(), chat_request(), callback_url=None, follow=follow)
    assert desk.publisher.published == []


async def test_a_parameter_that_the_named_provider_has_not_is_refused_before_anything_is_published(desk: Desk) -> None:
    async def ask(**given: Any) -> None:
        config = GenerationConfig(temperature=0.5, top_k=5, **given)
        request = chat_request(provider="openai", generation_config=config)
        await desk.submissions.accepted(user_updated(), request, callback_url=None)

    desk.offers = {"openai": [ProviderOffer(name="openai", parameters=("temperature", "top_p"))]}
    with pytest.raises(Problem) as caught:
        await ask()
    assert (caught.value.status, caught.value.code) == (400, "unsupported-parameter")
    assert caught.value.extra == {"parameters": ["top_k"]}
    assert desk.publisher.published == []
    await ask(strict=False)  # the stage leaves it out and says so
    desk.offers = {"openai": [ProviderOffer(name="openai")]}
    await ask()  # a worker of the version before does not tell what it has
    assert len(desk.publisher.published) == 2


class Seen:
    """An upload that says whether its place was left."""

    def __init__(self) -> None:
        self.left = 0
        self.upload: Upload = upload_of(GIF)
        self.upload.place = Place(self._leave)

    def _leave(self) -> None:
        self.left += 1

    def request(self, **more: Any) -> Any:
        return chat_request(image=self.upload.reference, **more)


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


class FakeStore(PayloadStore):
    """`kept`: what it was given; `deleted`: what was taken back."""

    def __init__(self, error: Exception | None = None, known: bool = False) -> None:
        self._error, self._known = error, known
        self.kept: list[Payload] = []
        self.deleted: list[UUID] = []

    async def store(self, payload: Payload, *, user_bytes: int) -> datetime:
        if self._error is not None:
            raise self._error
        self.kept.append(payload)
        return NOW

    async def size(self, payload_id: UUID, *, user_id: str) -> int | None:
        return len(GIF) if self._known else None

    async def delete(self, payload_id: UUID, *, user_id: str) -> bool:
        self.deleted.append(payload_id)
        return True


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


@pytest.mark.parametrize(
    ("can", "provider", "refused"),
    [
        ({"openai": ("stream",)}, "openai", True), ({"openai": ("stream", "images")}, "openai", False),
        ({"openai": ()}, "openai", False), ({}, "openai", False), ({}, None, False),
        ({"openai": ("stream",), "local": ("stream",)}, None, True),
        ({"openai": ("stream",), "local": ("stream", "images")}, None, False),
        ({"openai": ("stream",), "local": ()}, None, False),
    ],
)  # fmt: skip
async def test_where_nobody_sees_an_image_is_refused_before_it_is_stored(
    desk: Desk, can: dict[str, tuple[str, ...]], provider: str | None, refused: bool
) -> None:
    desk.offers = {name: [ProviderOffer(name=name, can=abilities)] for name, abilities in can.items()}
    seen, store = Seen(), FakeStore()
    desk.images._store = store
    request = seen.request(provider=provider)
    if not refused:
        await desk.submissions.accepted(user_updated(), request, callback_url=None, upload=seen.upload)
        return
    with pytest.raises(Problem) as caught:
        await desk.submissions.accepted(user_updated(), request, callback_url=None, upload=seen.upload)
    assert (caught.value.status, caught.value.code) == (400, "images-unsupported")
    assert (store.kept, desk.publisher.published) == ([], [])
    assert caught.value.extra["providers"] == []


@pytest.mark.parametrize(
    ("can", "refused"),
    [
        ({"openai": ("stream", "images"), "local": ("stream", "images")}, ""),
        ({"openai": ("stream", "images"), "local": ("stream",)}, "the provider local cannot"),
        ({"openai": ("stream",), "local": ("stream",)}, "the providers openai, local cannot"),
        ({"openai": ("stream", "images"), "local": ()}, ""),  # it does not tell
        ({"openai": (), "local": ("stream",)}, "the provider local cannot"),
    ],
)
async def test_of_several_providers_each_must_see(desk: Desk, can: dict[str, tuple[str, ...]], refused: str) -> None:
    desk.submissions._present_providers = lambda: ["openai", "local"]
    desk.offers = {name: [ProviderOffer(name=name, can=abilities)] for name, abilities in can.items()}
    seen, desk.images._store = Seen(), FakeStore()
    request = seen.request(provider=("openai", "local"))
    if not refused:
        await desk.submissions.accepted(user_updated(), request, callback_url=None, upload=seen.upload)
        return
    with pytest.raises(Problem) as caught:
        await desk.submissions.accepted(user_updated(), request, callback_url=None, upload=seen.upload)
    seeing = [name for name, abilities in can.items() if "images" in abilities]
    assert (caught.value.status, caught.value.code, caught.value.extra) == (
        400, "images-unsupported", {"providers": seeing},
    )  # fmt: skip
    assert refused in caught.value.detail
    assert (", ".join(seeing) or "GET /providers") in caught.value.detail
    assert desk.publisher.published == []


async def test_texts_to_embed_have_no_image(desk: Desk) -> None:
    request = EmbeddingRequest(texts=("a",))
    await desk.submissions.accepted(user_updated(), request, callback_url=None)
    assert len(desk.publisher.published) == 1


def test_a_reference_needs_no_more_than_its_id() -> None:
    assert chat_request(image=ImageReference(payload_id=UUID(int=1))).image is not None


@pytest.mark.parametrize(
    ("names", "absent"),
    [(("openai", "local"), "local is"), (("gemini", "openai"), "gemini is"), (("a", "b"), "a, b are")],
)
async def test_of_several_providers_each_must_be_there(desk: Desk, names: tuple[str, ...], absent: str) -> None:
    with pytest.raises(Problem) as caught:
        await desk.submissions.accepted(user_updated(), chat_request(provider=names), callback_url=None)
    assert (caught.value.status, caught.value.code) == (400, "no-such-provider")
    assert f"{absent} not present; present are: openai" in caught.value.detail
    assert caught.value.extra == {"providers": ["openai"]}
    assert desk.publisher.published == []


async def test_of_several_providers_each_must_have_the_parameters(desk: Desk) -> None:
    desk.submissions._present_providers = lambda: ["local", "openai"]
    desk.offers = {
        "openai": [ProviderOffer(name="openai", parameters=("seed",))],
        "local": [ProviderOffer(name="local", parameters=("top_k",))],
    }
    request = chat_request(provider=("openai", "local"), generation_config=GenerationConfig(seed=1))
    with pytest.raises(Problem) as caught:
        await desk.submissions.accepted(user_updated(), request, callback_url=None)
    assert (caught.value.code, caught.value.extra) == ("unsupported-parameter", {"parameters": ["seed"]})
    assert "the provider local" in caught.value.detail


async def test_only_admins_rehearse_failures(desk: Desk) -> None:
    request = chat_request(generation_config=GenerationConfig(simulate_failure=("openai",)))
    with pytest.raises(Problem) as caught:
        await desk.submissions.accepted(user_updated(), request, callback_url=None)
    assert (caught.value.status, caught.value.code) == (403, "not-allowed")
    assert desk.publisher.published == []
    await desk.submissions.accepted(user_updated(role="admin"), request, callback_url=None)
    assert len(desk.publisher.published) == 1


async def test_who_is_named_to_make_vectors_must_make_some(desk: Desk) -> None:
    desk.offers = {"openai": [ProviderOffer(name="openai", can=("stream",))]}
    asked: list[AnyRequest] = [
        RagRequest(question="Why?", embedding_provider="openai"), SearchRequest(query="why", provider="openai"),
        EmbeddingRequest(texts=("why",), provider="openai"),
    ]  # fmt: skip
    for request in asked:
        with pytest.raises(Problem) as caught:
            await desk.submissions.accepted(user_updated(), request, callback_url=None)
        assert (caught.value.status, caught.value.code) == (400, "no-such-provider")
        assert "makes no vectors" in caught.value.detail
    assert desk.publisher.published == []
    desk.offers = {"openai": [ProviderOffer(name="openai", can=("stream", "embeddings"))]}
    for request in asked:
        await desk.submissions.accepted(user_updated(), request, callback_url=None)
    assert len(desk.publisher.published) == 3


async def test_who_is_named_for_the_order_of_passages_must_be_there(desk: Desk) -> None:
    for names in ({"rerank_provider": "local"}, {"embedding_provider": "local"}, {"llm_provider": "local"}):
        with pytest.raises(Problem) as caught:
            await desk.submissions.accepted(
                user_updated(), RagRequest(question="Why?", **names), callback_url=None
            )  # fmt: skip
        assert caught.value.extra == {"providers": ["openai"]}


# --- documents ---


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
