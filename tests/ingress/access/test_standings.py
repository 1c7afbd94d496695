"""What a replica says of where a user stands, between the gate's words."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from ingress.access import standings as module
from ingress.access.standings import Standings, UserRules
from ingress.follower import Follower
from ingress.http.problems import Problem
from processors.limits.usage import Usage
from schemas.events import JobProgressed, RateLimit
from tests.factories import rate_limit, user_updated
from transport.clients import KafkaAccess

ALICE = user_updated()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def made(clock: Clock) -> Standings:
    return Standings(UserRules(window_s=60, user_limit=5, admin_limit=10), Usage())


def told(standing: RateLimit) -> tuple[int, int]:
    return standing.remaining, standing.reset_s


def test_before_the_gate_has_said_anything_it_is_what_this_replica_has_counted(made: Standings, clock: Clock) -> None:
    assert told(made.of(ALICE)) == (5, 0)
    for _ in range(5):
        made.take(ALICE)
    clock.now += 20
    assert told(made.of(ALICE)) == (0, 40)
    clock.now += 40
    assert told(made.of(ALICE)) == (5, 0)


def test_the_gates_word_counts_less_what_was_sent_since(made: Standings, clock: Clock) -> None:
    made.take(ALICE)
    made.heard("alice", rate_limit(remaining=3))
    assert told(made.of(ALICE)) == (3, 0)
    made.take(ALICE)
    assert told(made.of(ALICE)) == (2, 0)
    made.heard("alice", rate_limit(remaining=0, reset_s=30))
    clock.now += 10.5
    assert told(made.of(ALICE)) == (0, 20)
    clock.now += 19.5
    assert told(made.of(ALICE)) == (1, 0)  # one may pass again; how many, nobody has said
    clock.now += 60
    assert told(made.of(ALICE)) == (5, 0)


def test_a_word_of_another_limit_says_nothing_any_more(made: Standings) -> None:
    made.heard("alice", rate_limit(remaining=0, reset_s=30))
    raised = user_updated(rate_limit_requests=50)
    assert (made.of(raised).limit, *told(made.of(raised))) == (50, 50, 0)
    made.heard("alice", None)  # of a user without a limit
    assert told(made.of(ALICE)) == (0, 30)


@pytest.mark.parametrize("take", [Standings.take, lambda made, user: made.heard(user.user_id, rate_limit())])
def test_what_is_kept_of_users_has_a_bound(
    made: Standings, monkeypatch: pytest.MonkeyPatch, take: Callable[[Standings, object], None]
) -> None:
    monkeypatch.setattr(module, "MAX_FLOOD_USERS", 10)
    for n in range(50):
        take(made, user_updated(user_id=f"user-{n}"))
    assert len(made._seen) == 10


def test_what_was_under_way_before_this_replica_counts_but_for_what_it_has_heard_the_end_of() -> None:
    usage, jobs = Usage(), [uuid4() for _ in range(3)]
    made = Standings(UserRules(window_s=60, user_limit=5, admin_limit=10, max_pending=2), usage)
    usage.ended(str(jobs[0]).encode())
    made.recall([(job_id, "alice", datetime.now(UTC) + timedelta(hours=1)) for job_id in jobs])
    with pytest.raises(Problem, match="pending"):
        made.check_pending(ALICE)
    usage.ended(str(jobs[1]).encode())
    made.check_pending(ALICE)


def test_what_other_replicas_and_direct_publishers_have_begun_counts_too() -> None:
    usage, job_id = Usage(), uuid4()
    follower = Follower(KafkaAccess("nowhere:1"), progressed="p", finished="f", store=None, usage=usage)

    def hear(topic: str, value: bytes) -> int:
        record: Any = SimpleNamespace(topic=topic, key=str(job_id).encode(), value=value)
        follower._take(record)
        return usage.under_way("alice", at_least=0, now_ms=0)

    progressed = JobProgressed(job_id=job_id, user_id="alice", stage="s", state="started", at=datetime.now(UTC))
    assert hear("p", progressed.model_dump_json().encode()) == 0
    admitted = progressed.model_copy(update={"state": "admitted"}).model_dump_json().encode()
    for value in (b'{"state":"admitted"', b'["state":"admitted"]', b'{"state":"admitted","user_id":7}'):
        assert hear("p", value) == 0
    assert [hear("p", admitted) for _ in range(2)] == [1, 1]
    assert hear("f", b"{}") == 0
    assert hear("p", admitted) == 0  # heard late
