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
from tests.ingress.test_tokens import claims, signed
from transport.tokens import Tokens

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


TOKENS = Tokens([SECRET], lifetime_s=600, now=lambda: 1_000_000.0)
TOKEN = TOKENS.issue("alice", role="user", epoch=2)


def asked(
    header: str | None = f"Bearer {TOKEN}", *, at: float = 1_000_000.0, user: str = "alice", event_id: str = "1",
    request: dict[str, Any] | None = None, epoch: int = 2, mark: Headers | None = None,
    secrets: tuple[str, ...] = (SECRET,),
) -> Envelope[Any] | Undecodable:  # fmt: skip
    """Where tokens are required. `at`: when the brokers took it."""
    users = SimpleNamespace(values={"alice": user_updated(token_epoch=epoch)})
    # Whatever time it is when it is read.
    tokens = Tokens(secrets, lifetime_s=600, now=lambda: 5_000_000.0)
    entry = Entry(cast(Any, users), JOB_IDS, MARKS, expires_after_s=60, tokens=tokens)
    value = json.dumps({"user_id": user, "kind": "chat", "request": request or {"prompt": "hi"}}).encode()
    headers = [*Attributes(event_id, "/shop", "job-requested").headers(), *(mark or [])]
    if header is not None:
        headers.append(("authorization", header.encode()))
    return entry(ConsumerRecord("t", 0, 0, int(at * 1000), 1, b"k", value, None, 1, 1, headers))


def refusal(found: Envelope[Any] | Undecodable) -> str:
    assert isinstance(found, Undecodable)
    assert found.code == "not-authorized"
    return found.reason


def test_a_token_of_the_user_lets_an_event_in() -> None:
    assert isinstance(asked(), Envelope)
    assert isinstance(asked(f"bearer  {TOKEN}"), Envelope)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (None, "is missing"),
        ("", "is missing"),
        (f"Basic {TOKEN}", "is missing"),
        (f"Bearer {TOKEN}x", "none of ours"),
        ("Bearer " + Tokens(["x" * 40], lifetime_s=600).issue("alice", role="user", epoch=2), "none of ours"),
        ("Bearer " + signed(claims(aud="another", iat=999_990, nbf=999_990, exp=1_000_500), SECRET), "none of ours"),
        ("Bearer " + signed(claims(jti=None, iat=999_990, nbf=999_990, exp=1_000_500), SECRET), "none of ours"),
        ("Bearer " + TOKENS.issue("bob", role="admin", epoch=2), "another user's"),
    ],
)
def test_an_event_without_the_right_token_is_refused_and_ends_no_job_of_the_user(header: str | None, told: str) -> None:
    found = asked(header)
    assert told in refusal(found)
    assert isinstance(found, Undecodable)
    assert found.job is None
    assert TOKEN not in found.reason


def test_a_revoked_token_is_refused() -> None:
    assert "revoked" in refusal(asked(epoch=3))


@pytest.mark.parametrize("at", [999_960.0, 1_000_640.0])
def test_what_counts_is_the_time_at_which_the_brokers_took_the_record(at: float) -> None:
    found = asked(at=at)
    assert "had expired" in refusal(found)
    assert isinstance(found, Undecodable)
    assert found.job is not None  # its user is told
    assert isinstance(asked(at=1_000_620.0), Envelope)  # within the leeway, and long ago when it is read


def test_an_expired_token_of_somebody_else_ends_no_job() -> None:
    found = asked("Bearer " + TOKENS.issue("bob", role="user", epoch=2), at=1_009_999.0)
    assert isinstance(found, Undecodable)
    assert found.job is None


def test_during_a_rotation_a_token_under_either_key_counts() -> None:
    assert isinstance(asked(secrets=("n" * 40, SECRET)), Envelope)
    assert "none of ours" in refusal(asked(secrets=("n" * 40,)))


def test_the_ingresss_own_records_and_redrives_need_none() -> None:
    assert isinstance(asked(None, event_id=str(JOB_IDS.mint("alice"))), Envelope)
    assert isinstance(asked(None, mark=MARKS.headers(JOB_ID, 2)), Envelope)
    assert "is missing" in refusal(asked(None, event_id=str(JobIds(["x" * 40]).mint("alice"))))
    assert "is missing" in refusal(asked(None, event_id=str(JOB_IDS.mint("bob"))))
    assert "is missing" in refusal(asked(None, mark=RedriveMarks(["x"]).headers(JOB_ID, 2)))


def test_a_broken_request_without_a_token_ends_no_job() -> None:
    for header, ends in ((None, False), (f"Bearer {TOKEN}", True)):
        found = asked(header, request={"prompt": 1})
        assert isinstance(found, Undecodable)
        assert (found.code, found.job is not None) == ("invalid-event", ends)


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
