"""Where users stand with their limits, as far as this replica has heard; the exact rate limit is the gate's.

What is said on every answer that costs something comes from here: the gate's last word on the user, less what this
replica has sent it since; before there was one, what this replica has counted itself.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from time import monotonic, time
from uuid import UUID

from ingress.http.problems import Problem, rate_limit_headers
from processors.limits.quarantine import quarantined
from processors.limits.soft_limits import WAIT_S, SoftLimits, limits_of_role
from processors.limits.usage import Usage
from schemas.events import RateLimit, UserUpdated

FLOOD_FACTOR = 10  # times the user's limit: refused before anything is published
MAX_FLOOD_USERS = 10_000
DEFAULT_MAX_PENDING = 10_000  # of users; admins have no limit unless one is set


@dataclass(frozen=True, slots=True)
class UserRules:
    """What applies to users who have no limits of their own. None: none is set."""

    window_s: int
    user_limit: int
    admin_limit: int
    max_pending: int | None = None

    def requests_of(self, user: UserUpdated) -> int:
        """Per window."""
        if user.rate_limit_requests is not None:
            return user.rate_limit_requests
        return self.admin_limit if user.role == "admin" else self.user_limit

    def pending_of(self, user: UserUpdated) -> int | None:
        """At once."""
        limits: SoftLimits = limits_of_role(
            user.role, tokens_per_minute=None, max_in_flight=None, max_pending=self.max_pending,
            users_pending=DEFAULT_MAX_PENDING,
        )  # fmt: skip
        return limits.of(user).max_pending


@dataclass(slots=True)
class _Seen:
    """Of one user: calls of this replica since `began`; the gate's last word, when it was heard, and calls since."""

    began: float
    count: int = 0
    told: RateLimit | None = None
    told_at: float = 0.0
    since: int = 0


class Standings:
    """Of all users that call this replica."""

    def __init__(self, rules: UserRules, usage: Usage) -> None:
        """`usage`: what is under way, as far as it was heard."""
        self._rules, self._usage = rules, usage
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def take(self, user: UserUpdated) -> None:
        """Count a call that costs something.

        Raises:
            Problem: The user makes far more of them than the limit allows.
        """
        limit, window_s, now = self._rules.requests_of(user), self._rules.window_s, monotonic()
        seen = self._of(user.user_id, now)
        if seen.count >= FLOOD_FACTOR * max(limit, 1):
            wait = max(1, round(window_s - (now - seen.began)))
            standing = RateLimit(limit=limit, remaining=0, window_s=window_s, reset_s=wait)
            self.heard(user.user_id, standing)
            raise Problem(
                429, "rate-limited", f"far more than {limit} requests in {window_s} s; wait {wait} s",
                headers={"Retry-After": str(wait), **rate_limit_headers(standing)}, retry_after_s=wait,
            )  # fmt: skip
        seen.count += 1
        seen.since += 1

    def check_pending(self, user: UserUpdated) -> None:
        """Raise Problem where as many of the user's jobs as they may have have not ended."""
        most = self._rules.pending_of(user)
        if most is None or self._usage.under_way(user.user_id, at_least=most, now_ms=round(time() * 1000)) < most:
            return
        detail = f"as many jobs as you may have pending have not ended yet ({most}); wait for one of them"
        raise Problem(
            429, "rate-limited", detail,
            headers={"Retry-After": str(WAIT_S)}, retry_after_s=WAIT_S, limit="pending",
        )  # fmt: skip

    def began(self, user_id: str, job_id: UUID, *, good_for_s: float, may_have_ended: bool) -> None:
        """A job is about to be published; `may_have_ended`: it may have been before."""
        until_ms = round((time() + good_for_s) * 1000)
        self._usage.began(user_id, str(job_id).encode(), expires_at_ms=until_ms, is_heard=may_have_ended)

    def recall(self, jobs: Sequence[tuple[UUID, str, datetime]]) -> None:
        """Jobs that were under way before this replica was here: their users, and the end of their time."""
        self._usage.recall(jobs, now_ms=round(time() * 1000))

    def not_accepted(self, job_id: UUID) -> None:
        """Nothing came of it."""
        self._usage.ended(str(job_id).encode())

    def heard(self, user_id: str, standing: RateLimit | None) -> None:
        """The gate's word on one of the user's jobs."""
        if standing is not None:
            now = monotonic()
            seen = self._of(user_id, now)
            seen.told, seen.told_at, seen.since = standing, now, 0

    def of(self, user: UserUpdated) -> RateLimit:
        """Where the user stands now."""
        limit, window_s, now = self._rules.requests_of(user), self._rules.window_s, monotonic()
        seen = self._of(user.user_id, now)
        if seen.told is not None and now - seen.told_at < window_s and seen.told.limit == limit:
            reset_s = max(0, ceil(seen.told.reset_s - (now - seen.told_at)))
            is_over = seen.told.remaining == 0 and reset_s == 0  # one may pass again, and nobody has said how many
            remaining = max(0, seen.told.remaining + is_over - seen.since)
        else:
            reset_s, remaining = 0, max(0, limit - seen.count)
        if remaining == 0:
            reset_s = reset_s or max(1, ceil(window_s - (now - seen.began)))
        return RateLimit(limit=limit, remaining=remaining, window_s=window_s, reset_s=reset_s if remaining == 0 else 0)

    def _of(self, user_id: str, now: float) -> _Seen:
        seen = self._seen.get(user_id)
        if seen is None:
            seen = self._seen[user_id] = _Seen(now)
            if len(self._seen) > MAX_FLOOD_USERS:
                self._seen.popitem(last=False)
        elif now - seen.began >= self._rules.window_s:
            seen.began, seen.count = now, 0
        return seen


def check_quarantine(user: UserUpdated) -> None:
    """Raise Problem where nothing of this user's is taken."""
    if user.is_quarantined(now := datetime.now(UTC)):
        error = quarantined(user, now)
        headers = {"Retry-After": str(round(error.retry_after_s or 1))}
        raise Problem(403, error.code, error.message, headers=headers, retry_after_s=error.retry_after_s)
