"""What each user has under way, and has used of late, as far as it was heard: for limits that are soft by that lag.

Everything in it is bounded. What was forgotten, or never heard of, is not counted: then more passes, never less.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from schemas.events import ms_from_utc

MINUTE_MS = 60_000
BUCKET_MS = 1_000
GRACE_MS = 120_000  # after a job's time is up: by then its end was told, or nobody will tell it
MAX_JOBS, MAX_ENDED, MAX_USERS = 100_000, 50_000, 20_000
MAX_RECALLED = 20_000  # asked of Postgres by whoever begins to count
RECALLED_MS = 60_000  # and the grace: as long as work may take, for of some of them the end was told before


class Usage:
    """Jobs under way by user, and tokens of the last minute. Times are in ms."""

    def __init__(self) -> None:
        self._owners: OrderedDict[bytes, str] = OrderedDict()
        self._jobs: dict[str, dict[bytes, int]] = {}
        self._ended: OrderedDict[bytes, None] = OrderedDict()
        self._tokens: OrderedDict[str, deque[list[int]]] = OrderedDict()

    # --- jobs ---

    def began(self, user_id: str, job_id: bytes, *, expires_at_ms: int, is_heard: bool = False) -> None:
        """A job is under way. `is_heard`: by what may be told late, so that its end may have been told before."""
        if is_heard and job_id in self._ended:
            return
        self._ended.pop(job_id, None)  # it was begun anew
        if job_id in self._owners:
            return
        self._owners[job_id] = user_id
        self._jobs.setdefault(user_id, {})[job_id] = expires_at_ms + GRACE_MS
        if len(self._owners) > MAX_JOBS:
            self._drop(next(iter(self._owners)))

    def recall(self, jobs: Iterable[tuple[UUID, str, datetime]], *, now_ms: int) -> None:
        """Jobs that were under way before anything was heard, as a database has them, with the end of their time.

        Not for long: where the database lags behind, they may have ended, and nobody would tell of it again.
        """
        for job_id, user_id, expires_at in jobs:
            until_ms = min(ms_from_utc(expires_at), now_ms + RECALLED_MS)
            self.began(user_id, str(job_id).encode(), expires_at_ms=until_ms, is_heard=True)

    def ended(self, job_id: bytes) -> bool:
        """A job has ended, also one that nobody told of; False where that was told before."""
        self._drop(job_id)
        if job_id in self._ended:
            return False
        self._ended[job_id] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        return True

    def is_under_way(self, job_id: bytes) -> bool:
        """It has begun, and its end was not told."""
        return job_id in self._owners

    def under_way(self, user_id: str, *, at_least: int, now_ms: int) -> int:
        """How many of a user's jobs; those whose time is long up are let go where there are `at_least` so many."""
        jobs = self._jobs.get(user_id, {})
        if len(jobs) >= at_least:
            for job_id in [job_id for job_id, until_ms in jobs.items() if until_ms <= now_ms]:
                self._drop(job_id)
        return len(jobs)

    def _drop(self, job_id: bytes) -> None:
        user_id = self._owners.pop(job_id, None)
        if user_id is not None:
            jobs = self._jobs[user_id]
            del jobs[job_id]
            if not jobs:
                del self._jobs[user_id]

    # --- tokens ---

    def used(self, user_id: str, tokens: int, *, at_ms: int) -> None:
        """A job of this user that ended then has used so many tokens."""
        buckets = self._tokens.setdefault(user_id, deque())
        self._tokens.move_to_end(user_id)
        if buckets and at_ms < buckets[-1][0] + BUCKET_MS:  # one that is a little late counts with the newest
            buckets[-1][1] += tokens
        else:
            buckets.append([at_ms, tokens])
        while buckets[0][0] <= buckets[-1][0] - MINUTE_MS:
            buckets.popleft()
        if len(self._tokens) > MAX_USERS:  # whoever was quiet for longest
            self._tokens.popitem(last=False)

    def tokens(self, user_id: str, *, now_ms: int) -> int:
        """Of the minute until now."""
        return sum(tokens for at_ms, tokens in self._tokens.get(user_id, ()) if at_ms > now_ms - MINUTE_MS)

    def until_below(self, user_id: str, limit: int, *, now_ms: int) -> int:
        """After how many ms the minute's tokens are fewer than the limit, if no more are used."""
        left = self.tokens(user_id, now_ms=now_ms)
        for at_ms, tokens in self._tokens.get(user_id, ()):
            if at_ms > now_ms - MINUTE_MS:
                left -= tokens
                if left < limit:
                    return max(1, at_ms + MINUTE_MS - now_ms)
        return MINUTE_MS
