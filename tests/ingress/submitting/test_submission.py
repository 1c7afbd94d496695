"""What the ingress refuses before anything is published."""

from uuid import UUID

import pytest

from ingress.access import standings
from ingress.access.standings import FLOOD_FACTOR
from ingress.http.problems import Problem
from schemas.events import JobRequested, UserUpdated
from schemas.generation import GenerationConfig
from tests.factories import chat_request, user_updated
from tests.ingress.desk import ADMIN_LIMIT, USER_LIMIT, Desk


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


async def test_only_admins_rehearse_failures(desk: Desk) -> None:
    request = chat_request(generation_config=GenerationConfig(simulate_failure=("openai",)))
    with pytest.raises(Problem) as caught:
        await desk.submissions.accepted(user_updated(), request, callback_url=None)
    assert (caught.value.status, caught.value.code) == (403, "not-allowed")
    assert desk.publisher.published == []
    await desk.submissions.accepted(user_updated(role="admin"), request, callback_url=None)
    assert len(desk.publisher.published) == 1
