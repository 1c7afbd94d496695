"""Limits beside the request rate, in the gate's stage."""

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processors.limit_rate import Admissions, RateLimiter
from processors.limits.soft_limits import SoftLimiter, SoftLimits, limits_of_role
from processors.limits.usage import Usage
from processors.stage import Emit, RecordFacts
from schemas.events import JobAdmitted, JobFinished, ms_from_utc
from tests.factories import ACCEPTED_AT, NOW, job, prompt_sanitized, user_updated

NOW_MS = ms_from_utc(NOW)
WINDOW_S = 5


class Gate:
    """A limiter with one partition. `soft`: what applies, to be changed as it goes."""

    def __init__(self, soft: SoftLimits, *, limit: int | None = 1000) -> None:
        self.soft, self.usage = soft, Usage()
        self.limiter = RateLimiter(
            limit_of=lambda _: limit, window_s=WINDOW_S,
            soft=SoftLimiter(self.usage, limits_of=lambda job: self.soft.of(None)),
        )  # fmt: skip
        self.limiter.partitions[0] = Admissions(0, 0)

    def decide(self, offset: int, number: int | None = None, *, at_s: float = 0) -> JobAdmitted | JobFinished:
        number = offset if number is None else number
        of = job(job_id=UUID(int=number), accepted_at=ACCEPTED_AT + timedelta(seconds=at_s))
        result = self.limiter(prompt_sanitized(job=of), now=NOW, record=RecordFacts(0, offset, f"event-{number}"))
        assert isinstance(result, Emit)
        (event,) = result.events
        assert isinstance(event, JobAdmitted | JobFinished)
        return event

    def end(self, number: int, tokens: int = 0) -> None:
        self.usage.ended(str(UUID(int=number)).encode())
        if tokens:
            self.usage.used("alice", tokens, at_ms=NOW_MS)


def refusal(event: JobAdmitted | JobFinished) -> tuple[str, float | None]:
    assert isinstance(event, JobFinished)
    assert event.error is not None
    assert event.error.code == "rate-limited"
    return event.error.message, event.error.retry_after_s


@pytest.mark.parametrize("limit", [1000, None])
@pytest.mark.parametrize(
    ("soft", "what"), [(SoftLimits(max_in_flight=2), "in flight"), (SoftLimits(max_pending=2), "pending")]
)
def test_no_more_jobs_are_under_way_than_may_be_and_one_that_ended_makes_room(
    soft: SoftLimits, what: str, limit: int | None
) -> None:
    gate = Gate(soft, limit=limit)
    assert all(isinstance(gate.decide(n), JobAdmitted) for n in range(2))
    refused = gate.decide(2)
    message, wait_s = refusal(refused)
    assert what in message
    assert wait_s == 5
    assert isinstance(refused, JobFinished)
    if limit is not None:
        assert refused.rate_limit is not None
        assert (refused.rate_limit.remaining, refused.rate_limit.reset_s) == (0, 5)
    gate.end(0)
    assert isinstance(gate.decide(3), JobAdmitted)


def test_tokens_of_the_last_minute_are_counted_and_it_is_said_when_to_come_again() -> None:
    gate = Gate(SoftLimits(tokens_per_minute=100))
    assert isinstance(gate.decide(0), JobAdmitted)
    gate.end(0, tokens=99)
    assert isinstance(gate.decide(1), JobAdmitted)
    gate.end(1, tokens=1)
    message, wait_s = refusal(gate.decide(2))
    assert "100 of 100 tokens" in message
    assert wait_s == 60


def test_what_was_admitted_stays_so_when_it_comes_again() -> None:
    gate = Gate(SoftLimits(max_in_flight=1))
    assert isinstance(gate.decide(0), JobAdmitted)
    assert isinstance(gate.decide(0), JobAdmitted)  # it is under way itself
    gate.end(0)
    assert isinstance(gate.decide(1), JobAdmitted)
    assert isinstance(gate.decide(0), JobAdmitted)  # it has ended, and another is under way
    # The next owner has read back what was admitted, and knows of nothing that is under way but the second.
    other = Gate(SoftLimits(max_in_flight=0))
    other.limiter.partitions[0].add("alice", (ms_from_utc(ACCEPTED_AT), 0, "event-0"))
    assert isinstance(other.decide(0), JobAdmitted)
    refusal(other.decide(1))


@settings(max_examples=300, deadline=None)
@example([0, 1], [(True, 0), (False, 1), (False, 0)], 1)
@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=20),
    st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=3, max_size=40),
    st.integers(1, 3),
)
def test_whatever_they_say_no_window_holds_more_than_the_rate_allows(
    times: list[int], steps: list[tuple[bool, int]], limit: int
) -> None:
    """Soft limits that change their mind at each event, and a log that is gone through again from anywhere."""
    gate = Gate(SoftLimits(), limit=limit)
    admitted: dict[int, int] = {}
    at = 0
    for offset_steps in range(3 * len(times)):
        closed, back = steps[offset_steps % len(steps)]
        gate.soft = SoftLimits(max_in_flight=0 if closed else 1_000_000)
        if isinstance(gate.decide(at, at_s=times[at] / 2), JobAdmitted):
            admitted[at] = times[at]
        else:
            assert at not in admitted, "an admitted job was refused when it came again"
        at = max(0, at - back) if back else at + 1
        if at >= len(times):
            break
    ends = list(admitted.values())
    for end in ends:
        assert sum(end - 2 * WINDOW_S < time <= end for time in ends) <= limit


def test_a_users_own_limits_come_before_those_of_their_role_and_admins_have_none_unless_one_is_set() -> None:
    unset = {"tokens_per_minute": None, "max_in_flight": None, "max_pending": None}
    assert not limits_of_role("admin", **unset, users_pending=7).any
    assert limits_of_role("user", **unset, users_pending=7) == SoftLimits(max_pending=7)
    assert not limits_of_role("user", **unset).any
    everybody = limits_of_role("admin", tokens_per_minute=1, max_in_flight=2, max_pending=3, users_pending=7)
    assert everybody == SoftLimits(1, 2, 3)
    assert everybody.of(None) == everybody.of(user_updated()) == everybody
    assert everybody.of(user_updated(max_in_flight=9, max_pending=0)) == SoftLimits(1, 9, 0)
    assert SoftLimits().of(user_updated(tokens_per_minute=0)).any
