"""Callers who wait, and callers who leave."""

import asyncio
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import pytest

from ingress.access.standings import Standings, UserRules
from ingress.follower import Follower
from ingress.http.problems import Problem
from ingress.outcome import Outcome
from ingress.submitting.backpressure import Backpressure
from ingress.submitting.cancel_requests import CancelRequests
from ingress.submitting.idempotency import Idempotency
from ingress.submitting.submission import Rules, Submissions
from processors.limits.usage import Usage
from schemas.envelope import Record
from schemas.events import JobCancelRequested
from schemas.ids import JobIds
from tests.conftest import SECRET
from tests.factories import chat_request, user_updated
from transport.clients import KafkaAccess

RULES = Rules(
    topic="job-requested", allowed_providers=("openai",), default_timeout_s=30, admission_wait_s=0.1,
    expires_after_s=3600, document_expires_after_s=7200, callback_allow_private=False,
)  # fmt: skip


class FakePublisher:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    async def publish(self, record: Record) -> None:
        self.records.append(record)


class Scene:
    """One replica without a Kafka."""

    def __init__(self) -> None:
        self.publisher = FakePublisher()
        publisher: Any = self.publisher
        nobody: Any = None  # no request here has a key
        self.follower = Follower(KafkaAccess("nowhere:1"), progressed="p", finished="f", store=None)
        cancel_requests = CancelRequests(publisher, self.follower, topic="job-cancel-requested", wait_s=0.1)
        self.submissions = Submissions(
            publisher, self.follower, JobIds([SECRET]), RULES, cancel_requests=cancel_requests,
            present_providers=lambda: ["openai"], images=nobody, files=nobody,
            standings=Standings(UserRules(window_s=60, user_limit=100, admin_limit=100), Usage()),
            idempotency=Idempotency(nobody, publish_timeout_s=1),
            backpressure=Backpressure(max_wait_s=300, allowed=("openai",), default=None),
        )  # fmt: skip

    @property
    def job_id(self) -> UUID:
        """Of the one job that was asked for."""
        (record,) = [record for record in self.publisher.records if record.topic == "job-requested"]
        return UUID((dict(record.headers)["ce_id"] or b"").decode())

    @property
    def cancelled(self) -> list[JobCancelRequested]:
        return [
            JobCancelRequested.model_validate_json(record.value or b"")
            for record in self.publisher.records
            if record.topic == "job-cancel-requested"
        ]


async def at_once() -> None:
    """A caller who has left already."""


async def never() -> None:
    await asyncio.Event().wait()


async def test_a_caller_who_leaves_is_the_end_of_the_job() -> None:
    scene = Scene()
    with pytest.raises(Problem, match="closed the connection"):
        await scene.submissions.answered(user_updated(), chat_request(), left=at_once)
    assert scene.cancelled == [JobCancelRequested(job_id=scene.job_id, user_id="alice")]


async def test_a_job_that_another_waits_for_goes_on() -> None:
    scene = Scene()
    with ExitStack() as others:

        async def after_another_came() -> None:
            others.enter_context(scene.follower.watch(scene.job_id))

        with pytest.raises(Problem):
            await scene.submissions.answered(user_updated(), chat_request(), left=after_another_came)
    assert scene.cancelled == []


async def test_a_replica_that_stops_cancels_nothing() -> None:
    scene = Scene()

    async def after_the_stop() -> None:
        scene.submissions.draining = True

    with pytest.raises(Problem):
        await scene.submissions.answered(user_updated(), chat_request(), left=after_the_stop)
    assert scene.cancelled == []


async def test_an_outcome_is_answered_to_who_stays_and_nothing_is_left_behind() -> None:
    scene = Scene()
    asking = asyncio.create_task(scene.submissions.answered(user_updated(), chat_request(), left=never))
    while not scene.publisher.records:
        await asyncio.sleep(0)
    (watch,) = scene.follower._watches[str(scene.job_id).encode()]
    watch.finish(Outcome("completed", {"answer": 1}, None))
    job_id, outcome = await asking
    assert (job_id, outcome.result) == (scene.job_id, {"answer": 1})
    assert scene.cancelled == []
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert scene.follower.waiters(job_id) == 0
