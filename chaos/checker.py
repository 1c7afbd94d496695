"""What happened to each job: a pure function of the ledger and of one look at the system after the end.

A job is *acked* (202, another answer that names it, or a broker's ack), *refused* (nothing was accepted) or
*unknown*. What is found is counted per fault: a job belongs to the last one that was begun within 5 s of its sending,
when it may still have been in flight.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from chaos.ledger import Line

# Any of these makes the run fail. `repeated` does not: at least once is what is promised inside.
VIOLATIONS = ("lost", "doubled", "phantom", "stuck", "unsent", "unburied", "otherwise")
STEADY = "-"
IN_FLIGHT_S = 5.0
MAX_EVIDENCE = 10  # cases of each kind
POISONED, CANCELLED = "crashed-worker", "cancelled"
ONLY_WANTED = (POISONED, "output-too-large")  # how no job of the clients should end


@dataclass(frozen=True, slots=True)
class Row:
    """A job as Postgres has it. `key`: of the prompt, where the result tells it; `code`: of its error."""

    status: str
    outcome: str
    attempts: int
    key: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook as Postgres has it. `state`: `overdue` if it is due and its time is past."""

    webhook_id: str
    state: str


@dataclass(slots=True)
class Observed:
    """One look after the end.

    Attributes:
        rows: By job id.
        finished: Job id -> hashes of the outcomes in `job-finished`, in log order, without repetition.
        hooks: By job id.
        lag: `group topic-partition` -> records that are not committed.
        buried: Marks of the dead letters whose bytes are as they came.
        stages: Job id -> last stage seen in the log, of jobs without an outcome.
        letters: Job id -> codes of its dead letters.
    """

    rows: Mapping[str, Row]
    finished: Mapping[str, Sequence[str]]
    hooks: Mapping[str, Sequence[Hook]] = field(default_factory=dict)
    lag: Mapping[str, int] = field(default_factory=dict)
    buried: frozenset[str] = frozenset()
    stages: Mapping[str, str] = field(default_factory=dict)
    letters: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loss:
    """A log that is gone, with what was seen of it before. Promised is what Postgres had: the rest is `forgotten`.

    Attributes:
        since: When nothing waited, the last time before: what had been acked by then was all looked at.
        at: From then on there was nothing.
        rows: Jobs that had one.
        pending: Those of them that had no outcome.
    """

    since: float
    at: float
    rows: frozenset[str]
    pending: frozenset[str]

    def forgets(self, job: str, acked_at: float) -> bool:
        """It was accepted in the last moments, and had no row yet."""
        return self.since <= acked_at < self.at and job not in self.rows

    def forgets_outcome(self, job: str, seen_at: float) -> bool:
        """It had ended in the log, and not in Postgres: it is worked on again."""
        return seen_at < self.at and (job in self.pending or job not in self.rows)


@dataclass(slots=True)
class Sent:
    """One intent, with all that was answered to it."""

    key: str
    at: float
    hook: bool
    outcomes: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)
    acked: dict[str, float] = field(default_factory=dict)  # and when
    seen: dict[str, float] = field(default_factory=dict)  # hashes of outcomes that a waiting call was answered
    wanted: Line | None = None  # what the fault that sent it says of its end
    cancels: list[Line] = field(default_factory=list)  # of its job: asked for, and what was said


@dataclass(slots=True)
class Verdict:
    """Counts per window (`STEADY`, or the number of the fault in the order of injection), and evidence.

    `codes`: how many jobs ended with each error.
    """

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    codes: Counter[str] = field(default_factory=Counter)
    evidence: list[str] = field(default_factory=list)

    def total(self, name: str) -> int:
        """Over all windows."""
        return sum(counter[name] for counter in self.counts.values())

    @property
    def failed(self) -> bool:
        """Something that was promised did not hold."""
        return any(self.total(name) for name in VIOLATIONS)

    def add(self, window: str, name: str, count: int = 1, evidence: str = "") -> None:
        """Count, and keep the first few cases of each kind."""
        self.counts[window][name] += count
        told = sum(line.startswith(f"{name}: ") for line in self.evidence)
        if evidence and told < MAX_EVIDENCE:
            self.evidence.append(f"{name}: {evidence}")


def check(ledger: Iterable[Line], observed: Observed) -> Verdict:
    """Compare what clients were told with what there is."""
    ledger = list(ledger)
    sent: dict[str, Sent] = {}
    calls: Counter[str] = Counter()
    receipts: dict[str, list[Line]] = defaultdict(list)
    begun: list[float] = []
    garbage: list[Line] = []
    losses: list[Loss] = []
    verdict = Verdict()
    for line in sorted(ledger, key=lambda line: line["t"]):
        kind = line["kind"]
        if kind == "intent":
            sent[line["key"]] = Sent(line["key"], line["t"], line["hook"])
        elif kind == "answer":
            _answer(sent[line["key"]], line)
        elif kind == "cancel":
            sent[line["key"]].cancels.append(line)
        elif kind == "wanted":
            sent[line["key"]].wanted = line
        elif kind == "call":
            calls[line["key"]] += 1
        elif kind == "receipt":
            receipts[line["job"]].append(line)
        elif kind == "fault" and line["phase"] == "inject":
            begun.append(line["t"])
        elif kind == "garbage":
            garbage.append(line)
        elif kind == "claim" and not line["holds"]:
            verdict.add(str(len(begun)), "otherwise", evidence=line["told"])
        elif kind == "log-lost":
            rows, pending = frozenset(line["rows"]), frozenset(line["pending"])
            losses.append(Loss(line["since"], line["t"], rows, pending))
            for what in line["stranded"]:
                verdict.add(str(len(begun)), "lost", evidence=f"{what}: waited, and nothing moved any more")
    observed = _with_lost_logs(observed, ledger)

    for job, row in observed.rows.items():
        if row.key in sent:
            sent[row.key].jobs.add(job)  # also where no answer told its id

    def window_of(at: float) -> str:
        number = bisect_right(begun, at + IN_FLIGHT_S)
        return str(number) if number else STEADY

    for one in sent.values():
        _check_one(verdict, window_of(one.at), one, observed, calls[one.key], receipts, losses)
    _check_strangers(verdict, sent, observed, calls)
    for line in garbage:
        verdict.add(window_of(line["t"]), "garbage")
        if line["mark"] not in observed.buried:
            verdict.add(window_of(line["t"]), "unburied", evidence=f"{line['mark']} on {line['topic']}")
    for at, lag in observed.lag.items():
        if lag:
            verdict.add(STEADY, "stuck", evidence=f"{at}: {lag} records are not committed")
    for line in receipts.get(None, ()):  # type: ignore[call-overload]  # of a redirect that was followed
        verdict.add(window_of(line["t"]), "doubled", evidence=f"{line['id']}: a redirect was followed")
    return verdict


def _with_lost_logs(observed: Observed, ledger: Iterable[Line]) -> Observed:
    """What logs said that are gone comes before what the last one says."""
    finished: dict[str, list[str]] = defaultdict(list)
    letters: dict[str, frozenset[str]] = defaultdict(frozenset)
    buried = observed.buried
    logs = [(line["finished"], line["letters"]) for line in ledger if line["kind"] == "log-lost"]
    if not logs:
        return observed
    for told, codes in [*logs, (observed.finished, observed.letters)]:
        for job, outcomes in told.items():
            finished[job] += [outcome for outcome in outcomes if outcome not in finished[job]]
        for job, found in codes.items():
            letters[job] |= frozenset(found)
    for line in ledger:
        if line["kind"] == "log-lost":
            buried |= frozenset(line["buried"])
    return replace(observed, finished=finished, buried=buried, letters=letters)


def _answer(one: Sent, line: Line) -> None:
    one.outcomes.add(line["outcome"])
    if line["job"]:
        one.jobs.add(line["job"])
        if line["outcome"] == "acked":
            one.acked.setdefault(line["job"], line["t"])
    if line.get("seen"):
        one.seen.setdefault(line["seen"], line["t"])


def _check_one(
    verdict: Verdict, window: str, one: Sent, observed: Observed, calls: int, receipts: Mapping[str, Sequence[Line]],
    losses: Sequence[Loss],
) -> None:  # fmt: skip
    outcome = "acked" if one.acked else "unknown" if not one.outcomes or "unknown" in one.outcomes else "refused"
    verdict.add(window, "jobs")
    verdict.add(window, outcome)
    for job in sorted(one.acked):
        row = observed.rows.get(job)
        missing = "no row" if row is None else "pending" if row.status == "pending" else ""
        if not missing and not observed.finished.get(job):
            missing = "a row without an event"
        if missing and any(loss.forgets(job, one.acked[job]) for loss in losses):
            verdict.add(window, "forgotten")
        elif missing:
            stage = observed.stages.get(job, "not seen on any stage's topic")
            verdict.add(window, "lost", evidence=f"{one.key} {job}: {missing}; {stage}")
    existing = one.jobs & observed.rows.keys()
    if len(existing) > 1:
        verdict.add(window, "doubled", evidence=f"{one.key}: {len(existing)} jobs of one request")
    for job in sorted(one.jobs):
        visible = _visible(job, one, observed, receipts.get(job, ()), losses)
        if len(visible) > 1:
            verdict.add(window, "doubled", evidence=f"{one.key} {job}: {len(visible)} different results were seen")
        if one.cancels:
            _check_cancels(verdict, window, one, job, observed, losses)
        if one.hook and job in one.acked:
            _check_hook(verdict, window, job, observed, receipts.get(job, ()))
    if outcome == "refused" and (calls or existing):
        verdict.add(window, "phantom", evidence=f"{one.key}: refused, and {calls} calls, {len(existing)} rows")
    tried = max([1, *(observed.rows[job].attempts for job in existing)])
    verdict.add(window, "calls", calls)
    verdict.add(window, "repeated", max(0, calls - tried))
    for job in sorted(existing):
        verdict.codes.update(filter(None, [observed.rows[job].code]))
        for why in _otherwise(one, job, observed, repeated=calls - tried):
            verdict.add(window, "otherwise", evidence=f"{one.key} {job}: {why}")


def _otherwise(one: Sent, job: str, observed: Observed, *, repeated: int) -> Iterator[str]:
    """What is not as the fault that sent the job says; a job of nobody's is none of those that can never work."""
    row = observed.rows[job]
    if row.status == "pending":
        return  # lost, where it was acked
    if one.wanted is None:
        if row.code in ONLY_WANTED:
            yield f"ended with {row.code}, as nothing of it is like"
        return
    if row.code != one.wanted["code"]:
        yield f"ended with {row.code}, not with {one.wanted['code']}"
    elif row.code is not None and row.code not in observed.letters.get(job, ()):
        yield f"no dead letter {row.code}"
    if one.wanted["once"] and repeated > 0:
        yield f"{repeated} calls more than its outcome tells of"


def _visible(
    job: str, one: Sent, observed: Observed, receipts: Sequence[Line], losses: Sequence[Loss]
) -> set[str]:  # fmt: skip
    """Every result that somebody could see of a job: of what `job-finished` repeats, the first one only."""
    seen = {line["outcome"] for line in receipts if line["outcome"]}
    row = observed.rows.get(job)
    if row is not None and row.status != "pending":
        seen |= {row.outcome, *observed.finished.get(job, ())[:1]}
    if len(one.jobs) == 1:
        seen |= {told for told, at in one.seen.items() if not any(loss.forgets_outcome(job, at) for loss in losses)}
    return seen


def _check_cancels(
    verdict: Verdict, window: str, one: Sent, job: str, observed: Observed, losses: Sequence[Loss]
) -> None:  # fmt: skip
    """It has one end: the one that was told to whoever asked for another."""
    row = observed.rows.get(job)
    if row is None or row.status == "pending":
        return
    verdict.add(window, "asked_to_cancel")
    verdict.add(window, "cancelled", row.code == CANCELLED)
    for line in one.cancels:
        told = {"cancelled": True, "already-finished": False}.get(line["said"])
        if told is None or line["job"] != job or any(loss.forgets_outcome(job, line["t"]) for loss in losses):
            continue
        if told != (row.code == CANCELLED):
            said = f"said to be {line['said']}, and ended with {row.code}"
            verdict.add(window, "doubled", evidence=f"{one.key} {job}: {said}")


def _check_hook(verdict: Verdict, window: str, job: str, observed: Observed, receipts: Sequence[Line]) -> None:
    hooks = observed.hooks.get(job, ())
    ids = {line["id"] for line in receipts} | {hook.webhook_id for hook in hooks}
    if len(ids) > 1:
        verdict.add(window, "doubled", evidence=f"{job}: {len(ids)} webhook ids")
    if len({line["body"] for line in receipts}) > 1:
        verdict.add(window, "doubled", evidence=f"{job}: webhook bodies differ")
    good = any(line["valid"] and 200 <= line["said"] < 300 for line in receipts)
    waits = any(hook.state in ("due", "given-up") for hook in hooks)
    row = observed.rows.get(job)
    if not good and not waits and row is not None and row.status != "pending":
        verdict.add(window, "unsent", evidence=f"{job}: {len(receipts)} attempts, {[hook.state for hook in hooks]}")
    verdict.add(window, "hooks")
    verdict.add(window, "hook_repeats", max(0, len(receipts) - 1))


def _check_strangers(verdict: Verdict, sent: Mapping[str, Sent], observed: Observed, calls: Mapping[str, int]) -> None:
    """Rows and calls that nobody asked for."""
    for key in sorted({row.key for row in observed.rows.values() if row.key is not None} - sent.keys()):
        verdict.add(STEADY, "phantom", evidence=f"{key}: rows of a request that nobody sent")
    for key in sorted(calls.keys() - sent.keys()):
        verdict.add(STEADY, "phantom", evidence=f"{key}: calls for a request that nobody sent")
