"""What the ingress refuses by what it knows of a user, before anything is published."""

from datetime import UTC, datetime, timedelta

import pytest

from ingress.access import standings
from ingress.access.caller import note_caller
from ingress.http.problems import Problem
from ingress.publisher import NotAcceptedError
from schemas.envelope import Record, first_header
from tests.factories import user_updated
from tests.ingress.desk import Desk


async def test_somebody_in_quarantine_is_refused_before_anything_is_published(desk: Desk) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=90)
    problem = await desk.refused(user_updated(quarantined_until=soon))
    assert (problem.status, problem.code) == (403, "quarantined")
    assert 85 <= int(problem.headers["Retry-After"]) <= 90
    await desk.ask(user_updated(quarantined_until=soon - timedelta(seconds=91)))


async def test_as_many_jobs_may_be_pending_as_the_setting_or_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, max_pending=3)
    for user, most in ((user_updated(), 3), (user_updated(user_id="root", role="admin"), 3),
                       (user_updated(user_id="carol", max_pending=5), 5)):  # fmt: skip
        jobs = [await desk.ask(user) for _ in range(most)]
        problem = await desk.refused(user)
        assert (problem.status, problem.code) == (429, "rate-limited")
        assert problem.extra["limit"] == "pending"
        assert int(problem.headers["Retry-After"]) > 0
        desk.usage.ended(str(jobs[0]).encode())
        await desk.ask(user)


async def test_without_a_setting_admins_have_no_limit_of_pending_jobs(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standings, "DEFAULT_MAX_PENDING", 2)
    root = user_updated(user_id="root", role="admin")
    for _ in range(5):
        await desk.ask(root)
    for _ in range(2):
        await desk.ask(user_updated())
    assert (await desk.refused(user_updated())).extra["limit"] == "pending"


async def test_what_was_not_accepted_is_not_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, max_pending=1)

    async def away(record: Record) -> None:
        raise NotAcceptedError("away")

    take, desk.publisher.publish = desk.publisher.publish, away  # type: ignore[method-assign]
    with pytest.raises(Problem):
        await desk.ask(user_updated())
    desk.publisher.publish = take  # type: ignore[method-assign]
    await desk.ask(user_updated())


async def test_a_record_says_where_the_call_came_from(desk: Desk) -> None:
    note_caller({"client": ("203.0.113.7", 1)})
    await desk.ask(user_updated())
    note_caller({"client": None})
    await desk.ask(user_updated())
    told = [first_header(record.headers, "client-address") for record in desk.publisher.published]
    assert told == ["203.0.113.7", None]
