"""What is counted of users' jobs and tokens, as far as it was heard."""

from uuid import UUID

import pytest

from processors.limits import usage as module
from processors.limits.usage import GRACE_MS, RECALLED_MS, Usage
from schemas.events import utc_from_ms

HOUR_MS = 3_600_000


def jobs(of: Usage, user: str = "alice", *, now_ms: int = 0) -> int:
    return of.under_way(user, at_least=0, now_ms=now_ms)


def test_a_job_is_under_way_from_its_beginning_to_its_end() -> None:
    usage = Usage()
    for job in (b"1", b"2", b"2"):
        usage.began("alice", job, expires_at_ms=HOUR_MS)
    usage.began("bob", b"3", expires_at_ms=HOUR_MS)
    assert (jobs(usage), jobs(usage, "bob"), jobs(usage, "carol")) == (2, 1, 0)
    assert usage.ended(b"1")
    assert not usage.ended(b"1")
    assert (jobs(usage), usage.is_under_way(b"1"), usage.is_under_way(b"2")) == (1, False, True)


def test_a_beginning_that_is_told_after_the_end_is_none_and_a_run_begun_anew_is_one() -> None:
    usage = Usage()
    usage.ended(b"1")
    usage.began("alice", b"1", expires_at_ms=HOUR_MS, is_heard=True)
    assert jobs(usage) == 0
    usage.began("alice", b"1", expires_at_ms=HOUR_MS)
    assert jobs(usage) == 1


def test_a_job_whose_end_was_never_told_is_let_go_once_its_time_is_long_up() -> None:
    usage = Usage()
    usage.began("alice", b"1", expires_at_ms=1_000)
    usage.began("alice", b"2", expires_at_ms=HOUR_MS)
    assert jobs(usage, now_ms=1_000 + GRACE_MS - 1) == 2
    assert jobs(usage, now_ms=1_000 + GRACE_MS) == 1


def test_all_of_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_JOBS", "MAX_ENDED", "MAX_USERS"):
        monkeypatch.setattr(module, name, 10)
    usage = Usage()
    for n in range(50):
        usage.began(f"user-{n}", b"%d" % n, expires_at_ms=HOUR_MS)
        usage.used(f"user-{n}", 1, at_ms=n)
        usage.ended(b"e%d" % n)
    assert len(usage._owners) == len(usage._jobs) == len(usage._ended) == len(usage._tokens) == 10
    assert usage.is_under_way(b"49")
    for n in range(1000):
        usage.used("busy", 1, at_ms=n * 500)
    assert len(usage._tokens["busy"]) <= 61


def test_tokens_are_those_of_the_last_minute_and_it_is_known_when_there_is_room() -> None:
    usage = Usage()
    for at_ms, tokens in ((0, 100), (10_000, 50), (10_500, 25), (30_000, 10)):
        usage.used("alice", tokens, at_ms=at_ms)
    assert usage.tokens("alice", now_ms=30_000) == 185
    assert usage.until_below("alice", 180, now_ms=30_000) == 30_000  # the first of them leaves at 60 s
    assert usage.until_below("alice", 20, now_ms=30_000) == 40_000
    assert usage.tokens("alice", now_ms=60_000) == 85
    assert usage.tokens("alice", now_ms=90_000) == 0
    assert usage.until_below("alice", 0, now_ms=30_000) == 60_000
    assert usage.tokens("bob", now_ms=0) == 0


def test_what_a_database_says_is_believed_for_as_long_as_work_may_take() -> None:
    usage, jobs_ = Usage(), [UUID(int=n) for n in range(3)]
    usage.ended(str(jobs_[0]).encode())  # it lags behind
    hour, second = (utc_from_ms(ms) for ms in (HOUR_MS, 1000))
    usage.recall([(jobs_[0], "alice", hour), (jobs_[1], "alice", hour), (jobs_[2], "alice", second)], now_ms=0)
    assert jobs(usage) == 2
    assert jobs(usage, now_ms=1000 + GRACE_MS) == 1
    assert jobs(usage, now_ms=RECALLED_MS + GRACE_MS) == 0
