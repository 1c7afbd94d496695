"""The public way in, as far as a later run of a job goes."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.structs import ConsumerRecord

from processors.accept_job import job_id_of
from schemas.envelope import Attributes, Envelope, Headers
from schemas.ids import JobIds
from schemas.redrive import RedriveMarks
from streams.decode import Undecodable
from streams.entry import Entry
from tests.factories import user_updated

SECRET = "s" * 40
JOB_IDS, MARKS = JobIds([SECRET]), RedriveMarks([SECRET])
ATTRIBUTES = Attributes("1", "/shop", "job-requested")
JOB_ID = job_id_of("alice", ATTRIBUTES, JOB_IDS)


def entered(request: dict[str, Any], mark: Headers, attributes: Attributes = ATTRIBUTES) -> Envelope[Any] | Undecodable:
    users = SimpleNamespace(values={"alice": user_updated()})
    entry = Entry(cast(Any, users), JOB_IDS, MARKS, expires_after_s=60)
    value = json.dumps({"user_id": "alice", "kind": "chat", "request": request}).encode()
    headers = [*attributes.headers(), *mark]
    return entry(ConsumerRecord("t", 0, 0, 1, 1, b"k", value, None, 1, 1, headers))


@pytest.mark.parametrize(("mark", "run"), [(MARKS.headers(JOB_ID, 2), 2), (RedriveMarks(["x"]).headers(JOB_ID, 2), 1)])
def test_only_a_mark_of_ours_makes_a_later_run_of_the_same_job(mark: Headers, run: int) -> None:
    found = entered({"prompt": "hi"}, mark)
    assert isinstance(found, Envelope)
    assert (found.payload.job.job_id, found.payload.job.run) == (JOB_ID, run)


def test_a_request_that_still_does_not_fit_ends_the_later_run() -> None:
    found = entered({}, MARKS.headers(JOB_ID, 2))
    assert isinstance(found, Undecodable)
    assert found.job is not None
    assert (found.job.job_id, found.job.run) == (JOB_ID, 2)


def test_where_a_call_came_from_is_told_by_the_ingress_and_by_nobody_else() -> None:
    told: Headers = [("client-address", b"203.0.113.7")]
    ours = entered({"prompt": "hi"}, told, Attributes(str(JOB_IDS.mint("alice")), "/ingress", "job-requested"))
    assert isinstance(ours, Envelope)
    assert (ours.payload.source, ours.payload.address) == ("rest", "203.0.113.7")
    direct = entered({"prompt": "hi"}, told)
    assert isinstance(direct, Envelope)
    assert (direct.payload.source, direct.payload.address) == ("kafka", None)
