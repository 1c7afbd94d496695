"""Which jobs are not to go on, and the work on them that is to be cut.

Every worker knows all requests to cancel (see `cancellation_log`) and all users (`user-updated`), so it does not matter
which one a job is at.
"""

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar
from uuid import UUID

from processors.cancelled import CANCELLED, USER_DISABLED
from schemas.events import Job, JobCancelRequested, UserUpdated
from streams import metrics

R = TypeVar("R")
# A job is good for 86,400 s at most and then worked on for 120; the rest is for clocks that differ.
KEPT_MS = (86_400 + 3_600) * 1000
MAX_KEPT = 100_000  # about 50 MB; beyond it the oldest go, whose jobs have most likely ended


class Cancellations:
    """Requests to cancel of the last day, and users who may have nothing done any more.

    Honoured are the requests of a job's owner, and of admins.
    """

    def __init__(self, users: Mapping[str, UserUpdated], *, max_kept: int = MAX_KEPT) -> None:
        """`users`: all that there are, each change told to `hear_of_user`; `max_kept`: requests remembered at most."""
        self._users, self._max_kept = users, max_kept
        self._asked: dict[UUID, set[str]] = {}
        self._by_age: list[tuple[int, UUID, str]] = []
        self._newest_ms = 0
        self._work: dict[UUID, list[_Work]] = {}
        self._listeners: list[Callable[[UUID], None]] = []

    def __len__(self) -> int:
        return len(self._by_age)

    def take(self, requested: JobCancelRequested, *, at_ms: int) -> None:
        """Somebody wants a job cancelled; what is at work on it is cut. The same request may come again.

        `at_ms`: its append time. By it, not by a clock of this machine, is told what is too old to matter.
        """
        asked = self._asked.setdefault(requested.job_id, set())
        if requested.user_id not in asked:
            asked.add(requested.user_id)
            heapq.heappush(self._by_age, (at_ms, requested.job_id, requested.user_id))
            self._newest_ms = max(self._newest_ms, at_ms)
            self._forget()
        for work in self._work.get(requested.job_id, ()):
            if self.is_cancelled(work.job):
                work.cut()
        for listener in self._listeners:
            listener(requested.job_id)

    def hear_of_user(self, user_id: str, user: UserUpdated | None) -> None:
        """A user has changed: what is at work for one who is disabled is cut."""
        if user is None or not user.disabled:
            return
        for works in list(self._work.values()):
            for work in works:
                if work.job.user_id == user_id:
                    work.cut()

    def on_request(self, listener: Callable[[UUID], None]) -> None:
        """Tell somebody of each request, whoever made it."""
        self._listeners.append(listener)

    def is_requested(self, job_id: UUID) -> bool:
        """True if anybody at all has asked for it: then it is worth the look whose job it is."""
        return job_id in self._asked

    def why_not(self, job: Job) -> str | None:
        """The code with which a job ends that is not to go on; None: it is."""
        if self.is_disabled(job):
            return USER_DISABLED
        return CANCELLED if self.is_cancelled(job) else None

    def is_disabled(self, job: Job) -> bool:
        """True if its user was disabled, or deleted."""
        user = self._users.get(job.user_id)
        return user is not None and user.disabled

    def is_cancelled(self, job: Job) -> bool:
        """True if somebody who may has asked for it."""
        return self.is_wanted(job.job_id, owner=job.user_id)

    def is_wanted(self, job_id: UUID, *, owner: str) -> bool:
        """The same for a job of which only this is known."""
        asked = self._asked.get(job_id)
        if asked is None:
            return False
        return owner in asked or any(self._is_admin(user_id) for user_id in asked)

    async def unless_cancelled(self, job: Job, work: Coroutine[Any, Any, R]) -> R | None:
        """What came of the work, or None if its job is not to go on: it is then cut, or not begun at all.

        It runs in a task of its own. Cancelling the caller's would leave the ledger's entry open for ever; one who
        cancels the caller, as on a stop, still cancels both.
        """
        if self.why_not(job) is not None:
            work.close()
            return None
        at_work = _Work(job, asyncio.ensure_future(work))
        others = self._work.setdefault(job.job_id, [])
        others.append(at_work)
        try:
            result: R = await at_work.task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if not at_work.was_cut or (caller is not None and caller.cancelling()):
                raise
            return None
        finally:
            others.remove(at_work)
            if not others:
                del self._work[job.job_id]
        return result

    def _is_admin(self, user_id: str) -> bool:
        user = self._users.get(user_id)
        return user is not None and user.role == "admin" and not user.disabled

    def _forget(self) -> None:
        while len(self._by_age) > self._max_kept or self._by_age[0][0] < self._newest_ms - KEPT_MS:
            at_ms, job_id, user_id = heapq.heappop(self._by_age)
            asked = self._asked[job_id]
            asked.discard(user_id)
            if not asked:
                del self._asked[job_id]
            if at_ms >= self._newest_ms - KEPT_MS:
                metrics.CANCELLATIONS.labels("dropped").inc()


class _Work:
    """What is going on for one job."""

    __slots__ = ("job", "task", "was_cut")

    def __init__(self, job: Job, task: "asyncio.Future[Any]") -> None:
        self.job, self.task, self.was_cut = job, task, False

    def cut(self) -> None:
        self.was_cut = self.task.cancel() or self.was_cut
