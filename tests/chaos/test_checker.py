"""Each kind of violation, on ledgers made by hand: a checker that sees nothing would call everything well."""

from typing import Any

import pytest

from chaos.checker import STEADY, Hook, Observed, Row, check
from chaos.ledger import Line
from chaos.load import classify

JOB, OTHER = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"


def intent(key: str = "a", t: float = 100.0, hook: bool = False) -> Line:
    return {"kind": "intent", "t": t, "key": key, "hook": hook}


def answer(outcome: str = "acked", job: str | None = JOB, key: str = "a", t: float = 100.1, **more: Any) -> Line:
    return {"kind": "answer", "t": t, "key": key, "outcome": outcome, "job": job, **more}


def call(key: str = "a", t: float = 100.2) -> Line:
    return {"kind": "call", "t": t, "key": key, "n": 1}


def receipt(**more: Any) -> Line:
    fields = {"id": "msg_1", "job": JOB, "valid": True, "said": 204, "body": "b", "outcome": "x"}
    return {"kind": "receipt", "t": 101.0, **fields, **more}


def fault(t: float) -> Line:
    return {"kind": "fault", "phase": "inject", "t": t}


def wanted(code: str | None = None, *, once: bool = False) -> Line:
    return {"kind": "wanted", "t": 100.0, "key": "a", "code": code, "once": once}


def cancel(said: str | None, t: float = 100.5) -> Line:
    return {"kind": "cancel", "t": t, "key": "a", "job": JOB, "said": said}


def log_lost(t: float = 150.0, *, since: float = 50.0, rows: tuple[str, ...] = (), **more: Any) -> Line:
    empty: dict[str, Any] = {"pending": [], "stranded": [], "finished": {}, "buried": [], "letters": {}}
    return {"kind": "log-lost", "t": t, "since": since, "rows": list(rows), **empty, **more}


def row(
    outcome: str = "x", status: str = "completed", attempts: int = 1, key: str | None = "a", code: str | None = None
) -> Row:  # fmt: skip
    return Row(status, outcome, attempts, key, code)


def seen(rows: dict[str, Row] | None = None, finished: dict[str, list[str]] | None = None, **more: Any) -> Observed:
    return Observed({JOB: row()} if rows is None else rows, {JOB: ["x"]} if finished is None else finished, **more)


WELL = [intent(), answer(), call()]


def test_a_job_that_was_answered_once_is_well() -> None:
    verdict = check(WELL, seen())
    assert not verdict.failed
    assert verdict.counts[STEADY] == {"jobs": 1, "acked": 1, "calls": 1, "repeated": 0}
    assert verdict.evidence == []


@pytest.mark.parametrize(
    ("observed", "why"),
    [
        (seen({}, {}), "no row"),
        (seen({JOB: row(status="pending")}, {}), "pending"),
        (seen(finished={}), "a row without an event"),
    ],
)
def test_an_acked_job_without_an_end_is_lost(observed: Observed, why: str) -> None:
    verdict = check(WELL, observed)
    assert verdict.total("lost") == 1
    assert verdict.failed
    assert why in verdict.evidence[0]


def test_where_a_lost_job_was_last_seen_is_told() -> None:
    verdict = check(WELL, seen({}, {}, stages={JOB: "last seen on job-admitted"}))
    assert "last seen on job-admitted" in verdict.evidence[0]


@pytest.mark.parametrize("outcome", ["refused", "unknown"])
def test_a_job_that_was_not_acked_may_be_missing(outcome: str) -> None:
    verdict = check([intent(), answer(outcome, None)], seen({}, {}))
    assert not verdict.failed
    assert verdict.total(outcome) == 1


def test_an_intent_without_any_answer_is_unknown() -> None:
    assert check([intent()], seen({}, {})).total("unknown") == 1


@pytest.mark.parametrize(
    "lines",
    [
        [*WELL, receipt(outcome="y")],  # a webhook told another result than the row
        [intent(), answer(seen="y"), call()],  # the waiting call was answered another one
        [intent(hook=True), answer(), call(), receipt(), receipt(id="msg_2")],
        [intent(hook=True), answer(), call(), receipt(), receipt(body="c")],
    ],
)
def test_two_different_things_that_were_seen_of_one_job_are_doubled(lines: list[Line]) -> None:
    assert check(lines, seen()).total("doubled") == 1


def test_a_row_that_is_not_the_first_outcome_of_the_log_is_doubled() -> None:
    assert check(WELL, seen(finished={JOB: ["y", "x"]})).total("doubled") == 1
    assert not check(WELL, seen(finished={JOB: ["x", "y"]})).failed  # at least once inside


def test_two_jobs_of_one_request_are_doubled_even_where_only_one_was_told_of() -> None:
    rows = {JOB: row(), OTHER: row()}
    verdict = check([intent(), answer("unknown", None), answer()], seen(rows, {JOB: ["x"], OTHER: ["x"]}))
    assert verdict.total("doubled") == 1


def test_a_redirect_that_was_followed_is_told() -> None:
    assert check([*WELL, receipt(job=None, outcome=None)], seen()).failed


def test_a_refused_request_that_was_paid_for_is_a_phantom() -> None:
    refused = [intent(), answer("refused", None)]
    assert check([*refused, call()], seen({}, {})).total("phantom") == 1
    assert check(refused, seen()).total("phantom") == 1
    assert check(refused, seen({}, {})).total("phantom") == 0


def test_rows_and_calls_that_nobody_asked_for_are_phantoms() -> None:
    assert check([], seen()).total("phantom") == 1
    assert check([call("b")], seen({}, {})).total("phantom") == 1


def test_calls_beyond_the_tries_that_the_outcome_tells_of_are_repeated() -> None:
    assert check([*WELL, call(), call()], seen()).total("repeated") == 2
    assert check([*WELL, call(), call()], seen({JOB: row(attempts=2)})).total("repeated") == 1
    assert not check([*WELL, call()], seen()).failed


def test_what_is_not_committed_is_stuck() -> None:
    assert check(WELL, seen(lag={"g t-0": 3, "g t-1": 0})).total("stuck") == 1


@pytest.mark.parametrize(
    ("receipts", "hooks", "unsent"),
    [
        ([receipt()], [Hook("msg_1", "delivered")], 0),
        ([], [], 1),
        ([], [Hook("msg_1", "overdue")], 1),
        ([receipt(said=500)], [Hook("msg_1", "due")], 0),  # its next time has not come
        ([receipt(said=410)], [Hook("msg_1", "given-up")], 0),
        ([receipt(valid=False)], [Hook("msg_1", "delivered")], 1),
        ([receipt(said=500)], [Hook("msg_1", "delivered")], 1),
    ],
)
def test_a_webhook_that_nobody_got_is_unsent(receipts: list[Line], hooks: list[Hook], unsent: int) -> None:
    verdict = check([intent(hook=True), answer(), call(), *receipts], seen(hooks={JOB: hooks}))
    assert verdict.total("unsent") == unsent
    assert verdict.failed == bool(unsent)


def test_garbage_without_its_dead_letter_is_unburied() -> None:
    lines = [*WELL, *({"kind": "garbage", "t": 101.0, "mark": mark, "topic": "t"} for mark in "mn")]
    assert check(lines, seen(buried=frozenset("m"))).total("unburied") == 1
    assert not check(lines, seen(buried=frozenset("mn"))).failed


def test_a_job_belongs_to_the_fault_that_may_have_hit_it() -> None:
    lines = [fault(103.0), fault(200.0), intent("a", 90.0), intent("b", 99.0), intent("c", 150.0), intent("d", 300.0)]
    verdict = check(lines, seen({}, {}))
    assert {window: counts["jobs"] for window, counts in verdict.counts.items()} == {STEADY: 1, "1": 2, "2": 1}


# --- what a fault says of its own jobs ---


@pytest.mark.parametrize("code", ["crashed-worker", "output-too-large"])
def test_a_job_that_was_taken_for_a_poisonous_one_is_told(code: str) -> None:
    ended = seen({JOB: row(status="error", code=code)}, letters={JOB: frozenset([code])})
    assert check(WELL, ended).total("otherwise") == 1
    assert not check([*WELL, wanted(code)], ended).failed
    assert check(WELL, ended).codes == {code: 1}


@pytest.mark.parametrize(
    ("ended", "letters", "why"),
    [
        (row(), {}, "ended with None, not with crashed-worker"),
        (row(status="error", code="crashed-worker"), {}, "no dead letter"),
        (row(status="error", code="crashed-worker"), {JOB: frozenset(["timeout"])}, "no dead letter"),
    ],
)
def test_a_poisonous_job_without_its_end_and_dead_letter_is_told(ended: Row, letters: Any, why: str) -> None:
    verdict = check([*WELL, wanted("crashed-worker")], seen({JOB: ended}, letters=letters))
    assert verdict.total("otherwise") == 1
    assert why in verdict.evidence[0]


def test_calls_that_a_fault_may_not_cost_are_told() -> None:
    assert check([*WELL, call(), wanted(once=True)], seen()).total("otherwise") == 1
    assert not check([*WELL, call(), wanted(once=True)], seen({JOB: row(attempts=2)})).failed


# --- cancelling ---


@pytest.mark.parametrize(
    ("said", "code", "doubled"),
    [
        ("cancelled", "cancelled", 0),
        ("cancelled", None, 1),
        ("already-finished", None, 0),
        ("already-finished", "cancelled", 1),
        ("cancelling", None, 0),  # it may have been faster
        ("cancelling", "cancelled", 0),
        (None, None, 0),
    ],
)
def test_a_cancelled_job_has_the_end_that_was_told(said: str | None, code: str | None, doubled: int) -> None:
    verdict = check([*WELL, cancel(None), cancel(said)], seen({JOB: row(code=code)}))
    assert verdict.total("doubled") == doubled
    assert (verdict.total("asked_to_cancel"), verdict.total("cancelled")) == (1, code == "cancelled")


# --- a log that is gone ---


def test_what_the_lost_log_said_still_counts() -> None:
    told = log_lost(rows=(JOB,), finished={JOB: ["x"]}, buried=["m"], letters={JOB: ["crashed-worker"]})
    garbage = {"kind": "garbage", "t": 101.0, "mark": "m", "topic": "t"}
    assert check(WELL, seen(finished={})).failed
    assert not check([*WELL, told, garbage], seen(finished={})).failed
    assert check([*WELL, told], seen({JOB: row("y")}, {JOB: ["y"]})).total("doubled") == 1
    poisonous = seen({JOB: row(status="error", code="crashed-worker")}, finished={})
    assert not check([*WELL, wanted("crashed-worker"), told], poisonous).failed


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        (log_lost(), 0),
        (log_lost(since=101.0), 1),  # accepted before the look at what waits: it was lost by something else
        (log_lost(t=100.05), 1),  # accepted after
        (log_lost(rows=(JOB,), pending=[JOB]), 1),  # it had a row: it is to be brought back
    ],
)
def test_only_what_had_no_row_when_the_log_was_lost_is_forgotten(line: Line, lost: int) -> None:
    verdict = check([*WELL, line], seen({}, {}))
    assert (verdict.total("lost"), verdict.total("forgotten")) == (lost, 1 - lost)


def test_what_was_lost_before_the_log_is_not_put_down_to_it() -> None:
    verdict = check([*WELL, log_lost(rows=(JOB,), stranded=[JOB])], seen())
    assert verdict.total("lost") == 1
    assert "nothing moved" in verdict.evidence[0]


@pytest.mark.parametrize(("line", "doubled"), [(log_lost(rows=(JOB,), pending=[JOB]), 0), (log_lost(rows=(JOB,)), 1)])
def test_an_answer_that_only_the_lost_log_held_may_be_another_one_later(line: Line, doubled: int) -> None:
    lines = [intent(), answer(seen="y"), call(), line]
    assert check(lines, seen()).total("doubled") == doubled


@pytest.mark.parametrize(
    ("status", "body", "sync", "wanted"),
    [
        (202, '{"job_id": "j"}', False, ("acked", "j")),
        (504, '{"code": "outcome-unknown", "job_id": "j"}', False, ("unknown", "j")),
        (504, '{"code": "timeout", "job_id": "j"}', True, ("acked", "j")),
        (200, '{"meta": {"job_id": "j"}}', True, ("acked", "j")),
        (503, '{"code": "not-accepted"}', False, ("refused", None)),
        (422, '{"code": "invalid"}', False, ("refused", None)),
        (500, "oops", False, ("unknown", None)),
        (503, '{"code": "provider-unreachable", "job_id": "j"}', True, ("acked", "j")),
    ],
)
def test_answers_are_acked_refused_or_unknown(status: int, body: str, sync: bool, wanted: tuple[str, Any]) -> None:
    assert classify(status, body.encode(), sync=sync)[:2] == wanted


def test_evidence_is_bounded_for_each_kind_by_itself() -> None:
    sent = [line for n in range(50) for line in (intent(f"k{n}"), answer(job=f"j{n}", key=f"k{n}"), call("stranger"))]
    verdict = check([*sent, *(call(f"s{n}") for n in range(50))], seen({}, {}))
    assert verdict.total("lost") == 50
    assert verdict.total("phantom") == 51
    kinds = [line.partition(":")[0] for line in verdict.evidence]
    assert (kinds.count("lost"), kinds.count("phantom")) == (10, 10)
