from typing import Any

import pytest

from ingress import submission
from ingress.problems import Problem
from ingress.submission import FLOOD_FACTOR, Rules, Submissions
from tests.factories import user_updated

RULES = Rules(
    topic="job-requested", allowed_providers=("openai",), default_timeout_s=30, admission_wait_s=0.1, window_s=60,
    user_limit=2, admin_limit=3, callback_allow_private=False,
)  # fmt: skip


@pytest.fixture
def submissions() -> Submissions:
    nobody: Any = None
    return Submissions(
        nobody, nobody, nobody, RULES, present_providers=list, idempotency=nobody, backpressure=nobody
    )  # fmt: skip


@pytest.mark.parametrize(("role", "limit"), [("user", 2), ("admin", 3)])
def test_ten_times_the_limit_is_a_flood(
    submissions: Submissions, monkeypatch: pytest.MonkeyPatch, role: str, limit: int
) -> None:
    now = [100.0]
    monkeypatch.setattr(submission, "monotonic", lambda: now[0])
    user = user_updated(role=role)
    for _ in range(FLOOD_FACTOR * limit):
        submissions.count(user)
    now[0] += 20
    with pytest.raises(Problem) as refused:
        submissions.count(user)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "40")
    submissions.count(user_updated(user_id="bob"))
    now[0] += 40
    submissions.count(user)


def test_counts_of_a_bounded_number_of_users_are_kept(
    submissions: Submissions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "MAX_FLOOD_USERS", 10)
    for n in range(100):
        submissions.count(user_updated(user_id=f"user-{n}"))
        assert len(submissions._counts) <= 11
