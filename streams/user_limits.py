"""Makes what the gate limits users by, from settings and from what `user-updated` says of them."""

from collections.abc import Mapping

from processors.limit_rate import RateLimiter
from processors.limits.soft_limits import SoftLimiter, SoftLimits, limits_of_role
from processors.limits.usage import MAX_RECALLED, Usage
from schemas.events import Job, UserUpdated
from schemas.request_fields import Role
from schemas.topics import Catalog
from settings import Settings
from sinks.pool import Pool
from sinks.postgres import JobStore
from streams.usage_log import UsageLog
from transport.clients import KafkaAccess


class UserLimits:
    """The limiter, and what keeps it supplied. `hear` is to be told of every user."""

    def __init__(
        self, settings: Settings, access: KafkaAccess, catalog: Catalog, users: Mapping[str, UserUpdated],
        *, pool: Pool | None,
    ) -> None:  # fmt: skip
        """`users`: all that there are."""
        self._settings, self._users = settings, users
        roles: tuple[Role, ...] = ("user", "admin")
        self._by_role = {role: self._of_role(role) for role in roles}
        self._is_wanted = any(limits.any for limits in self._by_role.values())
        self._counts_tokens = settings.tokens_per_minute_per_user is not None
        usage = Usage()
        self.limiter = RateLimiter(
            limit_of=self._requests_of, window_s=settings.rate_limit_window,
            soft=SoftLimiter(usage, limits_of=self._soft_of),
        )  # fmt: skip
        jobs = JobStore(pool) if pool is not None else None
        self.usage_log = UsageLog(
            access, usage, admitted=catalog.full_name("job-admitted"), finished=catalog.full_name("job-finished"),
            is_wanted=lambda: self._is_wanted, counts_tokens=lambda: self._counts_tokens,
            pending=(lambda: jobs.under_way(limit=MAX_RECALLED)) if jobs is not None else None,
        )  # fmt: skip

    def hear(self, user_id: str, user: UserUpdated | None) -> None:  # noqa: ARG002 as others are told of users
        """A user was changed: one who has a limit of their own is reason to count."""
        if user is None:
            return
        self._is_wanted = self._is_wanted or SoftLimits().of(user).any
        self._counts_tokens = self._counts_tokens or user.tokens_per_minute is not None

    def _of_role(self, role: Role) -> SoftLimits:
        settings = self._settings
        return limits_of_role(
            role, tokens_per_minute=settings.tokens_per_minute_per_user, max_in_flight=settings.max_in_flight_per_user,
            max_pending=settings.max_pending_jobs_per_user,
        )  # fmt: skip

    def _requests_of(self, job: Job) -> int | None:
        user = self._users.get(job.user_id)
        if user is not None and user.rate_limit_requests is not None:
            return user.rate_limit_requests
        admin = job.role == "admin"
        return self._settings.rate_limit_admin_requests if admin else self._settings.rate_limit_user_requests

    def _soft_of(self, job: Job) -> SoftLimits:
        return self._by_role[job.role].of(self._users.get(job.user_id))
