"""Stage: prompt-sanitized -> job-admitted, or job-finished with `rate-limited`.

The verdict is a pure function of the log: an event is admitted if, with the user's admissions of lower source
offset, no window of that length then holds more than the limit. Times are `accepted_at`, the broker's append time;
the same id at the same time is the same event. So each owner of a partition, also one that does not know that it
has lost it, reaches the same verdicts, and nothing is stored beside the log (docs/adr/0004).

Limits beside the rate (tokens, jobs in flight) are no function of the log: an event that they refuse may be admitted
when it comes again. So what was admitted once stays so, and one that comes again among later admissions is counted
with all of them: whatever those limits said the first time, no window holds more than the rate allows.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from processors.limits.soft_limits import Excess, SoftLimiter
from processors.stage import Emit, RecordFacts, StageResult
from schemas.events import Job, JobAdmitted, JobError, JobFinished, PromptSanitized, RateLimit, ms_from_utc

RATE_LIMITED = "rate-limited"
KEPT_WINDOWS = 10  # of a partition's past, beyond which memory is let go; older times are read back

Entry = tuple[int, int, str]  # accepted_at in ms, source offset, event id


class Admissions:
    """Of one partition: all with accepted_at >= `since`, complete below source offset `next`; some above it."""

    def __init__(self, since: int, next_offset: int) -> None:
        self.since, self.next = since, next_offset
        self._highest = -1  # source offset of any admission
        self._users: dict[str, list[Entry]] = {}

    def of(self, user_id: str) -> list[Entry]:
        """The user's, by time."""
        return self._users.get(user_id, [])

    def is_ahead_of(self, offset: int) -> bool:
        """True if some admission has a higher source offset: then a part of the log is gone through again."""
        return self._highest >= offset

    def add(self, user_id: str, entry: Entry) -> None:
        """Remember one. A duplicate from upstream has two offsets: the lower counts."""
        at, offset, event_id = entry
        entries = self._users.setdefault(user_id, [])
        for known in entries[bisect_left(entries, (at,)) : bisect_left(entries, (at + 1,))]:
            if known[2] == event_id:
                if known[1] <= offset:
                    return
                entries.remove(known)
                break
        insort(entries, entry)
        self._highest = max(self._highest, offset)

    def forget(self, since: int) -> None:
        """Let go what is older."""
        self.since = since
        for user_id, entries in list(self._users.items()):
            del entries[: bisect_left(entries, (since,))]
            if not entries:
                del self._users[user_id]


def fits(times: Sequence[int], at: int, *, limit: int, window_ms: int) -> bool:
    """True if one more at `at` leaves no window with more than `limit`. `times`: in order, each less than one away."""
    before = bisect_right(times, at)
    ends = [at, *times[before:]]
    return all(bisect_right(times, end) - bisect_right(times, end - window_ms) < limit for end in ends)


class RateLimiter:
    """The stage, with its memory of each partition; `streams.admission_log` restores what memory lacks."""

    def __init__(
        self, *, limit_of: Callable[[Job], int | None], window_s: int, soft: SoftLimiter | None = None
    ) -> None:
        """`limit_of`: requests per window of a job's user; None: no limit; 0: none is admitted. `soft`: the others."""
        self._limit_of, self.window_ms, self._soft = limit_of, window_s * 1000, soft
        self.partitions: dict[int, Admissions] = {}

    def __call__(self, event: PromptSanitized, *, now: datetime, record: RecordFacts) -> StageResult:
        """Decide on one event; called in offset order.

        Returns:
            `Emit` with `JobAdmitted`, or with a `JobFinished` whose error is `rate-limited`, `retry_after_s` given.
        """
        job, admissions = event.job, self.partitions[record.partition]
        admissions.next = max(admissions.next, record.offset + 1)
        limit = self._limit_of(job)
        soft = self._soft if self._soft is not None and self._soft.concerns(job) else None
        at = ms_from_utc(job.accepted_at)
        if limit is None and soft is None:
            return Emit((JobAdmitted(job=job, request=event.request),))
        times, known = self._past(admissions, job.user_id, at, record, counts_all=soft is not None)
        if soft is not None and not known:
            now_ms = ms_from_utc(now)
            if (excess := soft.excess(job, now_ms=now_ms)) is not None:
                return self._refused(job, now, excess, limit)
        if limit is None:
            return self._admitted(event, admissions, (at, record.offset, record.event_id), None, soft)
        # Fewer in reach than the limit: then no window holds too many, wherever it lies. Most events end here.
        admitted = known or len(times) < limit or fits(times, at, limit=limit, window_ms=self.window_ms)
        standing = self._standing(times, at, limit, admitted=admitted)
        if admitted:
            return self._admitted(event, admissions, (at, record.offset, record.event_id), standing, soft)
        message = f"more than {limit} requests in {self.window_ms // 1000} s; try again in {standing.reset_s} s"
        error = JobError(code=RATE_LIMITED, message=message, retry_after_s=standing.reset_s)
        return Emit((JobFinished.failed(job, error=error, at=now, rate_limit=standing),))

    def _admitted(
        self, event: PromptSanitized, admissions: Admissions, entry: Entry, standing: RateLimit | None,
        soft: SoftLimiter | None,
    ) -> StageResult:  # fmt: skip
        job = event.job
        admissions.add(job.user_id, entry)
        if soft is not None:
            soft.admitted(job, expires_at_ms=ms_from_utc(job.expires_at))
        return Emit((JobAdmitted(job=job, request=event.request, rate_limit=standing),))

    def _refused(self, job: Job, now: datetime, excess: Excess, limit: int | None) -> StageResult:
        """By a limit beside the rate, of which the user's standing then tells."""
        error = JobError(code=RATE_LIMITED, message=excess.message, retry_after_s=excess.wait_s)
        standing = None
        if limit is not None:
            standing = RateLimit(limit=limit, remaining=0, window_s=self.window_ms // 1000, reset_s=excess.wait_s)
        return Emit((JobFinished.failed(job, error=error, at=now, rate_limit=standing),))

    def _past(
        self, admissions: Admissions, user_id: str, at: int, record: RecordFacts, *, counts_all: bool
    ) -> tuple[Sequence[int], bool]:
        """Times of the user's other admissions less than a window away, in order; and if it is one.

        Those of lower offset; with `counts_all` also the later ones, where a part of the log is gone through again.
        """
        entries = admissions.of(user_id)
        first, last = bisect_left(entries, (at - self.window_ms + 1,)), bisect_left(entries, (at + self.window_ms,))
        same_time = entries[bisect_left(entries, (at,), first) : bisect_left(entries, (at + 1,), first)]
        known = any(event_id == record.event_id for _, _, event_id in same_time)
        if known or admissions.is_ahead_of(record.offset):
            near = entries[first:last]
            lower = [near_by for near_by in near if (counts_all and not known) or near_by[1] < record.offset]
            return [t for t, _, event_id in lower if event_id != record.event_id], known
        return _Times(entries, first, last), False

    def _standing(self, times: Sequence[int], at: int, limit: int, *, admitted: bool) -> RateLimit:
        """`reset_s`: until one more would be admitted; 0 where it would be now."""
        first, last = bisect_right(times, at - self.window_ms), bisect_right(times, at)
        in_window = last - first + admitted
        remaining = max(0, limit - in_window) if admitted else 0
        reset_ms = 0
        if remaining == 0:
            # Free again when all but limit-1 of those in the window have left it; this one is the last of them.
            place = last - (limit - admitted)
            oldest = times[place] if limit > 0 and first <= place < last else at
            reset_ms = max(1, oldest + self.window_ms - at)
        return RateLimit(
            limit=limit, remaining=remaining, window_s=self.window_ms // 1000, reset_s=-(-reset_ms // 1000)
        )


class _Times(Sequence[int]):
    """The times of a slice of entries, without copying it: a user may have a hundred thousand."""

    __slots__ = ("_entries", "_first", "_size")

    def __init__(self, entries: list[Entry], first: int, last: int) -> None:
        self._entries, self._first, self._size = entries, first, last - first

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(self._size))]
        if not 0 <= place < self._size:
            raise IndexError(place)
        return self._entries[self._first + place][0]
