"""Stage: prompt-sanitized -> job-admitted, or job-finished with `rate-limited`.

The verdict is a pure function of the log: an event is admitted if, with the user's admissions of lower source
offset, no window of that length then holds more than the limit. Times are `accepted_at`, the broker's append time;
the same id at the same time is the same event. So each owner of a partition, also one that does not know that it
has lost it, reaches the same verdicts, and nothing is stored beside the log (docs/adr/0004).
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from datetime import datetime

from processors.stage import Emit, RecordFacts, StageResult
from schemas.events import Job, JobAdmitted, JobError, JobFinished, PromptSanitized, RateLimit, ms_from_utc

RATE_LIMITED = "rate-limited"
KEPT_WINDOWS = 10  # of a partition's past, beyond which memory is let go; older times are read back

Entry = tuple[int, int, str]  # accepted_at in ms, source offset, event id


class Admissions:
    """Of one partition: all with accepted_at >= `since`, complete below source offset `next`; some above it."""

    def __init__(self, since: int, next_offset: int) -> None:
        self.since, self.next = since, next_offset
        self._users: dict[str, list[Entry]] = {}

    def near(self, user_id: str, at: int, window_ms: int) -> list[Entry]:
        """The user's admissions less than a window away from a time."""
        entries = self._users.get(user_id, [])
        first, last = bisect_left(entries, (at - window_ms + 1,)), bisect_left(entries, (at + window_ms,))
        return entries[first:last]

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

    def forget(self, since: int) -> None:
        """Let go what is older."""
        self.since = since
        for user_id, entries in list(self._users.items()):
            del entries[: bisect_left(entries, (since,))]
            if not entries:
                del self._users[user_id]


def fits(times: Iterable[int], at: int, *, limit: int, window_ms: int) -> bool:
    """True if one more at `at` leaves no window with more than `limit`; `times` lie less than a window from it."""
    near = list(times)
    ends = [at, *(time for time in near if time > at)]
    return all(sum(end - window_ms < time <= end for time in near) < limit for end in ends)


class RateLimiter:
    """The stage, with its memory of each partition; `streams.admission_log` restores what memory lacks."""

    def __init__(self, *, limit_of: Callable[[Job], int | None], window_s: int) -> None:
        """`limit_of`: requests per window of a job's user; None: no limit; 0: none is admitted."""
        self._limit_of, self.window_ms = limit_of, window_s * 1000
        self.partitions: dict[int, Admissions] = {}

    def __call__(self, event: PromptSanitized, *, now: datetime, record: RecordFacts) -> StageResult:
        """Decide on one event; called in offset order.

        Returns:
            `Emit` with `JobAdmitted`, or with a `JobFinished` whose error is `rate-limited`, `retry_after_s` given.
        """
        job, admissions = event.job, self.partitions[record.partition]
        limit = self._limit_of(job)
        if limit is None:
            admissions.next = max(admissions.next, record.offset + 1)
            return Emit((JobAdmitted(job=job, request=event.request),))
        at = ms_from_utc(job.accepted_at)
        near = admissions.near(job.user_id, at, self.window_ms)
        known = any(entry[0] == at and entry[2] == record.event_id for entry in near)
        before = [time for time, offset, event_id in near if offset < record.offset and event_id != record.event_id]
        admitted = known or fits(before, at, limit=limit, window_ms=self.window_ms)
        if admitted:
            admissions.add(job.user_id, (at, record.offset, record.event_id))
        admissions.next = max(admissions.next, record.offset + 1)
        standing = self._standing(before, at, limit, admitted=admitted)
        if admitted:
            return Emit((JobAdmitted(job=job, request=event.request, rate_limit=standing),))
        message = f"more than {limit} requests in {self.window_ms // 1000} s; try again in {standing.reset_s} s"
        error = JobError(code=RATE_LIMITED, message=message, retry_after_s=standing.reset_s)
        return Emit((JobFinished.failed(job, error=error, at=now, rate_limit=standing),))

    def _standing(self, before: list[int], at: int, limit: int, *, admitted: bool) -> RateLimit:
        """`reset_s`: until one more would be admitted; 0 where it would be now."""
        in_window = sorted(time for time in [*before, *([at] if admitted else [])] if time > at - self.window_ms)
        remaining = max(0, limit - len(in_window)) if admitted else 0
        reset_ms = 0
        if remaining == 0:
            # Free again when all but limit-1 of those in the window have left it.
            oldest = in_window[-limit] if 0 < limit <= len(in_window) else (in_window[0] if in_window else at)
            reset_ms = max(1, oldest + self.window_ms - at)
        return RateLimit(
            limit=limit, remaining=remaining, window_s=self.window_ms // 1000, reset_s=-(-reset_ms // 1000)
        )
