"""The verdict is a pure function of the log: proven against a brute-force recomputation of it."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from processors.limit_rate import Admissions, RateLimiter
from processors.stage import Emit, RecordFacts
from schemas.events import JobAdmitted, JobFinished, ms_from_utc
from tests.factories import ACCEPTED_AT, NOW, job, prompt_sanitized

LIMIT, WINDOW_S = 3, 5


@dataclass(frozen=True)
class Logged:
    """A record of prompt-sanitized: `number` names the event; a duplicate from upstream has it twice."""

    offset: int
    number: int
    user: str
    at_s: float

    @property
    def event_id(self) -> str:
        return f"event-{self.number}"

    def event(self):
        accepted = ACCEPTED_AT + timedelta(seconds=self.at_s)
        return prompt_sanitized(job=job(job_id=UUID(int=self.number), user_id=self.user, accepted_at=accepted))


def limiter(limit: int | None = LIMIT) -> RateLimiter:
    made = RateLimiter(limit_of=lambda _: limit, window_s=WINDOW_S)
    made.partitions[0] = Admissions(0, 0)
    return made


def decide(of: RateLimiter, record: Logged):
    result = of(record.event(), now=NOW, record=RecordFacts(0, record.offset, record.event_id))
    assert isinstance(result, Emit)
    (event,) = result.events
    assert isinstance(event, JobAdmitted | JobFinished)
    return event


def brute_force(log: list[Logged]) -> dict[int, bool]:
    """Offset -> verdict, from the whole log and nothing else."""
    admitted: dict[tuple[str, int], Logged] = {}
    verdicts: dict[int, bool] = {}
    for record in log:
        key = (record.user, record.number)
        if key in admitted:
            verdicts[record.offset] = True
            continue
        times = [other.at_s for other in admitted.values() if other.user == record.user]
        ends = [record.at_s, *(time for time in times if time > record.at_s)]
        verdicts[record.offset] = all(
            sum(end - WINDOW_S < time <= end for time in [*times, record.at_s]) <= LIMIT
            for end in ends
            if end - record.at_s < WINDOW_S
        )
        if verdicts[record.offset]:
            admitted[key] = record
    return verdicts


@st.composite
def logs(draw) -> list[Logged]:
    size = draw(st.integers(1, 40))
    events = [(n, draw(st.sampled_from("ab")), draw(st.integers(0, 40)) / 2) for n in range(size)]
    times = dict(enumerate(events))
    numbers = [draw(st.integers(0, size - 1)) if draw(st.integers(0, 9)) == 0 else n for n in range(size)]
    return [Logged(offset, number, times[number][1], times[number][2]) for offset, number in enumerate(numbers)]


def served(log: list[Logged], losses: set[int], *, read_back: bool) -> dict[int, bool]:
    """Verdicts of owners that lose their memory at some offsets, each going on a little before where that was."""
    of = limiter()
    verdicts: dict[int, bool] = {}
    admissions: list[tuple[str, tuple[int, int, str]]] = []
    at = 0
    pending = set(losses)
    while at < len(log):
        if at in pending:
            pending.discard(at)
            at = max(0, at - 3)  # a redelivery: what was not committed comes again
            of = limiter()
            of.partitions[0].next = at
            if read_back:
                for user, entry in admissions:
                    of.partitions[0].add(user, entry)
            continue
        record = log[at]
        event = decide(of, record)
        if isinstance(event, JobAdmitted):
            entry = (ms_from_utc(event.job.accepted_at), record.offset, record.event_id)
            admissions.append((record.user, entry))
        verdict = isinstance(event, JobAdmitted)
        assert verdicts.get(record.offset, verdict) == verdict or not read_back, "two verdicts on one record"
        verdicts[record.offset] = verdict
        at += 1
    return verdicts


@settings(max_examples=300, deadline=None)
@given(logs(), st.sets(st.integers(0, 40), max_size=4))
def test_verdicts_are_those_of_the_log_whoever_decides_and_however_often(log: list[Logged], losses: set[int]) -> None:
    assert served(log, losses, read_back=True) == brute_force(log)


def test_without_reading_back_the_checker_sees_wrong_verdicts() -> None:
    log = [Logged(n, n, "a", n / 10) for n in range(10)]
    assert served(log, {5}, read_back=False) != brute_force(log)


def test_the_limit_holds_in_every_window_and_frees_up_again() -> None:
    of = limiter()
    verdicts = [isinstance(decide(of, Logged(n, n, "a", n)), JobAdmitted) for n in range(12)]
    assert verdicts == [True] * 3 + [False] * 2 + [True] * 3 + [False] * 2 + [True] * 2


def test_a_refusal_says_when_to_come_again() -> None:
    of = limiter()
    events = [decide(of, Logged(n, n, "a", n * 0.5)) for n in range(4)]
    assert [event.rate_limit.remaining for event in events[:3]] == [2, 1, 0]
    refused = events[3]
    assert isinstance(refused, JobFinished)
    assert refused.error is not None
    assert refused.error.code == "rate-limited"
    assert refused.error.retry_after_s == 4  # the first was 1.5 s ago: 3.5 s, in whole seconds
    assert isinstance(decide(of, Logged(4, 4, "a", 1.5 + 4)), JobAdmitted)


def test_users_do_not_count_against_each_other() -> None:
    of = limiter()
    assert all(isinstance(decide(of, Logged(n, n, f"user-{n}", 0)), JobAdmitted) for n in range(10))


def test_without_a_limit_everything_passes_and_a_limit_of_none_admits_nothing() -> None:
    free = limiter(None)
    assert all(isinstance(decide(free, Logged(n, n, "a", 0)), JobAdmitted) for n in range(10))
    assert isinstance(decide(limiter(0), Logged(0, 0, "a", 0)), JobFinished)


def test_memory_is_let_go_but_not_what_still_counts() -> None:
    of = limiter()
    for n in range(3):
        decide(of, Logged(n, n, "a", n))
    of.partitions[0].forget(ms_from_utc(ACCEPTED_AT) + 1000)
    assert len(of.partitions[0].of("a")) == 2
