"""Limits beside the request rate: tokens a minute, jobs in flight, jobs pending. Soft by the lag of `job-finished`."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from processors.limits.usage import Usage
from schemas.events import Job, UserUpdated
from schemas.request_fields import Role

WAIT_S = 5  # until one of their jobs may have ended: nobody knows when


@dataclass(frozen=True, slots=True)
class SoftLimits:
    """Of a user; None: no limit."""

    tokens_per_minute: int | None = None
    max_in_flight: int | None = None
    max_pending: int | None = None

    @property
    def any(self) -> bool:
        """There is one."""
        return not (self.tokens_per_minute is self.max_in_flight is self.max_pending is None)

    def of(self, user: UserUpdated | None) -> "SoftLimits":
        """These, or a user's own in their place."""
        if user is None or (user.tokens_per_minute is user.max_in_flight is user.max_pending is None):
            return self
        return SoftLimits(
            self.tokens_per_minute if user.tokens_per_minute is None else user.tokens_per_minute,
            self.max_in_flight if user.max_in_flight is None else user.max_in_flight,
            self.max_pending if user.max_pending is None else user.max_pending,
        )


@dataclass(frozen=True, slots=True)
class Excess:
    """Which limit is reached, and after how many seconds it may not be any more."""

    message: str
    wait_s: int


def excess(user_id: str, limits: SoftLimits, usage: Usage, *, now_ms: int) -> Excess | None:
    """The limit that stands in the way of one more job, if one does."""
    if limits.tokens_per_minute is not None:
        used = usage.tokens(user_id, now_ms=now_ms)
        if used >= limits.tokens_per_minute:
            wait_s = ceil(usage.until_below(user_id, limits.tokens_per_minute, now_ms=now_ms) / 1000)
            return Excess(
                f"{used} of {limits.tokens_per_minute} tokens a minute are used; try again in {wait_s} s", wait_s
            )
    for most, what in ((limits.max_in_flight, "in flight"), (limits.max_pending, "pending")):
        if most is not None and usage.under_way(user_id, at_least=most, now_ms=now_ms) >= most:
            return Excess(
                f"as many jobs as you may have {what} have not ended yet ({most}); wait for one of them", WAIT_S
            )
    return None


class SoftLimiter:
    """The same for the stage `limit_rate`; `streams.usage_log` tells it of all that it has not admitted itself."""

    def __init__(self, usage: Usage, *, limits_of: Callable[[Job], SoftLimits]) -> None:
        """`limits_of`: of a job's user."""
        self._usage, self._limits_of = usage, limits_of

    def concerns(self, job: Job) -> bool:
        """The job's user has such limits."""
        return self._limits_of(job).any

    def excess(self, job: Job, *, now_ms: int) -> Excess | None:
        """What stands in the way of this job; nothing, where it is under way already."""
        if self._usage.is_under_way(str(job.job_id).encode()):
            return None
        return excess(job.user_id, self._limits_of(job), self._usage, now_ms=now_ms)

    def admitted(self, job: Job, *, expires_at_ms: int) -> None:
        """It is under way from now on."""
        self._usage.began(job.user_id, str(job.job_id).encode(), expires_at_ms=expires_at_ms)


def limits_of_role(
    role: Role, *, tokens_per_minute: int | None, max_in_flight: int | None, max_pending: int | None,
    users_pending: int | None = None,
) -> SoftLimits:  # fmt: skip
    """Those that are set, for everybody. `users_pending`: where none is set, for users; admins then have none."""
    if max_pending is None and role == "user":
        max_pending = users_pending
    return SoftLimits(tokens_per_minute, max_in_flight, max_pending)
