"""What the ingress refuses before anything is published."""

from typing import Any
from uuid import UUID

import pytest

from ingress import submission
from ingress.backpressure import Backpressure
from ingress.follower import Follower
from ingress.idempotency import Idempotency
from ingress.problems import Problem
from ingress.publisher import Publisher
from ingress.submission import FLOOD_FACTOR, Rules, Submissions
from schemas.envelope import Record
from schemas.events import JobRequested, ProviderOffer, UserUpdated
from schemas.ids import JobIds
from schemas.requests import GenerationConfig
from tests.conftest import SECRET
from tests.factories import chat_request, user_updated
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

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, callback_allow_private: bool = False) -> None:
        rules = Rules(
            topic="job-requested", allowed_providers=("openai", "local"), default_timeout_s=30, admission_wait_s=0,
            window_s=WINDOW_S, user_limit=USER_LIMIT, admin_limit=ADMIN_LIMIT,
            callback_allow_private=callback_allow_private,
        )  # fmt: skip
        self.publisher, self.now = RecordingPublisher(), 1000.0
        self.offers: dict[str, list[ProviderOffer]] = {}
        follower = Follower(NOWHERE, progressed="job-progressed", finished="job-finished", store=None)
        monkeypatch.setattr(submission, "monotonic", lambda: self.now)
        nobody: Any = None  # no request here has a key
        self.submissions = Submissions(
            self.publisher, follower, JobIds([SECRET]), rules, present_providers=lambda: ["openai"],
            cancel_requests=nobody,
            offers=lambda: self.offers,
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
    monkeypatch.setattr(submission, "MAX_FLOOD_USERS", 10)
    for n in range(50):
        await desk.ask(user_updated(user_id=f"user-{n}"))
        assert len(desk.submissions._counts) <= 11


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
