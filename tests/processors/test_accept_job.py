"""Whose job a request is, which id it has, and until when it is good."""

from datetime import timedelta
from uuid import uuid4

import pytest

from processors.accept_job import accept_job, job_id_of
from schemas.envelope import Attributes
from schemas.events import Job, JobAccepted, JobRequested
from schemas.ids import JobIds, direct_job_id
from schemas.requests import TrainingRequest
from tests.conftest import SECRET
from tests.factories import ACCEPTED_AT, chat_request, document_request, job_requested, user_updated

JOB_IDS = JobIds([SECRET])
USERS = {"alice": user_updated(), "root": user_updated(user_id="root", role="admin")}


def accepted(requested: JobRequested, attributes: Attributes) -> JobAccepted:
    return accept_job(
        requested, attributes, accepted_at=ACCEPTED_AT, users=USERS, job_ids=JOB_IDS, expires_after_s=3600
    )


def test_a_request_of_the_ingress_keeps_its_id() -> None:
    job_id = JOB_IDS.mint("alice")
    requested = job_requested(callback_url="https://x.example/", metadata={"order": "7"}, expires_after=5)
    assert accepted(requested, Attributes(str(job_id), "/ingress", "job-requested")) == JobAccepted(
        job=Job(
            job_id=job_id, run=1, user_id="alice", role="user", kind="chat", callback_url="https://x.example/",
            accepted_at=ACCEPTED_AT, expires_at=ACCEPTED_AT + timedelta(seconds=5), metadata={"order": "7"},
        ),
        request=chat_request(),
        source="rest",
    )  # fmt: skip


def test_an_address_is_believed_beside_an_id_that_an_ingress_made() -> None:
    for event_id, told in ((str(JOB_IDS.mint("alice")), ("rest", "203.0.113.7")), ("1", ("kafka", None)),
                           (str(JOB_IDS.mint("bob")), ("kafka", None))):  # fmt: skip
        found = accept_job(
            job_requested(), Attributes(event_id, "/ingress", "job-requested"), accepted_at=ACCEPTED_AT, users=USERS,
            job_ids=JOB_IDS, expires_after_s=3600, address="203.0.113.7",
        )  # fmt: skip
        assert (found.source, found.address) == told


def test_without_a_time_of_its_own_it_is_good_for_as_long_as_the_settings_say() -> None:
    job = accepted(job_requested(), Attributes("1", "/shop", "job-requested")).job
    assert job.expires_at == ACCEPTED_AT + timedelta(hours=1)


@pytest.mark.parametrize(("user_id", "role"), [("root", "admin"), ("alice", "user"), ("nobody", "user")])
def test_the_role_is_the_gates_to_know(user_id: str, role: str) -> None:
    claimed = JobRequested.model_validate({
        "user_id": user_id, "kind": "chat", "request": {"prompt": "x"}, "role": "admin",
        "accepted_at": "2020-01-01T00:00:00Z",
    })  # fmt: skip
    job = accepted(claimed, Attributes("1", "/shop", "job-requested")).job
    assert (job.role, job.accepted_at) == (role, ACCEPTED_AT)


def test_an_id_of_somebody_else_or_of_nobody_is_a_direct_publishers_own() -> None:
    minted_for_root, own = JOB_IDS.mint("root"), uuid4()
    forged = JobIds(["another-secret-0123456789-abcdefghijklmnop"]).mint("alice")
    for event_id in (str(minted_for_root), str(own), str(forged), "order 7"):
        attributes = Attributes(event_id, "/shop", "job-requested")
        assert job_id_of("alice", attributes, JOB_IDS) == direct_job_id("/shop", "alice", event_id)


def test_a_direct_publishers_retry_is_the_same_job_and_anything_else_another() -> None:
    ids = [
        job_id_of(user_id, Attributes(event_id, source, "job-requested"), JOB_IDS)
        for user_id, event_id, source in (
            ("alice", "1", "/shop"), ("alice", "1", "/shop"), ("alice", "2", "/shop"), ("alice", "1", "/mill"),
            ("root", "1", "/shop"),
        )
    ]  # fmt: skip
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


def test_an_id_of_before_a_rotation_is_still_known() -> None:
    job_id = JobIds(["the-former-secret-0123456789-abcdefghij"]).mint("alice")
    rotated = JobIds([SECRET, "the-former-secret-0123456789-abcdefghij"])
    assert job_id_of("alice", Attributes(str(job_id), "/ingress", "job-requested"), rotated) == job_id


@pytest.mark.parametrize(("timeout", "good_for_s"), [(None, 14_400), (50_000.0, 50_000)])
def test_a_training_is_good_for_as_long_as_trainings_are_unless_it_says_otherwise(
    timeout: float | None, good_for_s: int
) -> None:
    request = TrainingRequest(name="polite", timeout=timeout)
    made = accept_job(
        JobRequested(user_id="alice", kind="training", request=request), Attributes("1", "/shop", "job-requested"),
        accepted_at=ACCEPTED_AT, users={}, job_ids=JOB_IDS, expires_after_s=3600, training_expires_after_s=14_400,
    )  # fmt: skip
    assert (made.job.expires_at - ACCEPTED_AT).total_seconds() == good_for_s


def test_a_document_is_good_for_as_long_as_documents_are_unless_it_says_otherwise() -> None:
    for more, timeout, good_for_s in (({}, None, 7200), ({"expires_after": 60}, 90.0, 60), ({}, 90.0, 90)):
        request = document_request(timeout=timeout)
        requested = JobRequested(user_id="alice", kind="document", request=request, **more)
        made = accept_job(
            requested, Attributes("1", "/shop", "job-requested"), accepted_at=ACCEPTED_AT, users={}, job_ids=JOB_IDS,
            expires_after_s=3600, document_expires_after_s=7200,
        )  # fmt: skip
        assert (made.job.expires_at - ACCEPTED_AT).total_seconds() == good_for_s
