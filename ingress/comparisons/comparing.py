"""Runs comparisons: each cell of the grid as an ordinary job of its user, so many at a time, through any restart.

All that is known of one is in Postgres. Whichever replica has the lease of a comparison looks at its jobs' rows,
gives the next cell that waits a job, and publishes it; nobody holds anything that a crash could lose.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

from pydantic import ValidationError

from ingress.http.problems import Problem
from ingress.publisher import NotAcceptedError, OutcomeUnknownError
from ingress.submitting.cancel_requests import CancelRequests
from ingress.submitting.submission import Submissions
from processors.errors import RetryableError
from processors.loops import Loop, repeat
from schemas.events import UserUpdated
from schemas.ids import JobIds
from schemas.requests import ChatRequest
from sinks.comparison_rows import Claimed, Standing
from sinks.comparisons import ComparisonStore
from sinks.pool import Pool

logger = logging.getLogger(__name__)

LEASE_S, RENEW_EVERY_S = 15.0, 5.0
LOOK_FOR_NEW_EVERY_S = 1.0
MAX_RUN_HERE = 100  # comparisons
FIRST_LOOK_S, MAX_LOOK_S = 0.05, 1.0  # at what has become of jobs
MAX_PUT_OFF_S = 5.0  # until another look, where the user's rate is waited for: the comparison may be cancelled
CANCEL_AGAIN_S = 2.0
UNTOLD_WAIT_S = 5.0  # where a refusal does not say how long
AFTER_A_BUG_S = 5.0
STOP_S = 5.0  # a statement that is taken back waits for the database
CANCELLED = {"code": "cancelled", "message": "the comparison was cancelled"}
EXPIRED = {"code": "expired", "message": "the comparison took too long: its last cells were not asked"}
DISABLED = {"code": "user-disabled", "message": "the user is disabled, or is no longer there"}
INVALID = {"code": "invalid-event", "message": "this version takes no such request"}
LOST = {"code": "unexpected-error", "message": "there is no trace of the cell's job"}


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast comparisons go.

    Attributes:
        in_flight: Jobs of one comparison at a time.
        unknown_after_s: After so long without a word of a publication it is made again.
        lost_after_s: After so long without a trace of a job there is none.
    """

    in_flight: int
    unknown_after_s: float
    lost_after_s: float


class Comparing:
    """One replica's part in it."""

    def __init__(
        self, pool: Pool, submissions: Submissions, cancel_requests: CancelRequests, job_ids: JobIds,
        *, user_of: Callable[[str], UserUpdated | None], users_known: Callable[[], bool], pace: Pace,
    ) -> None:  # fmt: skip
        """`pool`: nobody else's; `user_of`: None for nobody; `users_known`: False while that cannot be told yet."""
        self._pool, self._store = pool, ComparisonStore(pool)
        self._submissions, self._cancel_requests = submissions, cancel_requests
        self._job_ids, self._user_of, self._users_known, self._pace = job_ids, user_of, users_known, pace
        self._lease_id = uuid4()
        self._running: dict[UUID, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._new = asyncio.Event()

    def start(self) -> None:
        """Begin; returns at once."""
        self._tasks = [
            asyncio.create_task(self._take_over(), name="comparisons"),
            asyncio.create_task(
                repeat(self._renew, "renewing leases of comparisons", every_s=RENEW_EVERY_S, begins_at_once=False),
                name="leases of comparisons",
            ),
        ]

    async def stop(self) -> None:
        """Leave all of them to others; may be called without `start`."""
        await _ended(*self._tasks, *self._running.values())
        if self._tasks:
            with contextlib.suppress(RetryableError, TimeoutError):
                await asyncio.wait_for(self._store.release(self._lease_id), 2)
        self._tasks = []
        await self._pool.close()

    def look(self) -> None:
        """There is a new one."""
        self._new.set()

    # --- which ones ---

    async def _take_over(self) -> None:
        loop = Loop("taking over comparisons")
        while True:
            self._running = {one: task for one, task in self._running.items() if not task.done()}
            if self._submissions.draining:  # others go on at once
                await _ended(*self._running.values())
                with contextlib.suppress(RetryableError):
                    await self._store.release(self._lease_id)
                return
            try:
                free = MAX_RUN_HERE - len(self._running)
                found = await self._store.lease(self._lease_id, for_s=LEASE_S, limit=free) if free else []
                loop.went_well()
            except RetryableError:
                found = []
            except Exception as bug:  # it looks again when it would have
                loop.met(bug)
                found = []
            for comparison_id in found:
                known = self._running.get(comparison_id)
                if known is None or known.done():
                    task = asyncio.create_task(self._run(comparison_id), name=f"comparison {comparison_id}")
                    self._running[comparison_id] = task
            self._new.clear()
            # Not wait_for: Python 3.11's forgets that it was cancelled where the event comes at the same time.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_FOR_NEW_EVERY_S):
                    await self._new.wait()

    async def _renew(self) -> None:
        # Only what runs: a lease without its task would be nobody's work for ever.
        running = [one for one, task in self._running.items() if not task.done()]
        await self._store.renew(self._lease_id, running, for_s=LEASE_S)

    # --- one of them ---

    async def _run(self, comparison_id: UUID) -> None:
        pause, before, cancelled_at = FIRST_LOOK_S, (-1, -1), float("-inf")
        while True:
            try:
                standing = await self._step(comparison_id)
                if standing is None:
                    return
                if standing.is_cancelled and standing.at_work:
                    now = asyncio.get_running_loop().time()
                    if now - cancelled_at >= CANCEL_AGAIN_S:
                        cancelled_at = now
                        await self.cancel(await self._store.at_work(comparison_id), standing.user_id)
            except RetryableError:
                pause = MAX_LOOK_S
            except Exception:  # nobody else would start it again
                logger.exception("a bug in running comparison %s", comparison_id)
                pause = AFTER_A_BUG_S
            else:
                now_at = (standing.waiting, standing.at_work)
                pause = FIRST_LOOK_S if now_at != before else min(MAX_LOOK_S, pause * 2)
                before = now_at
                if standing.wait_s > 0 and not standing.at_work:
                    pause = min(standing.wait_s, MAX_PUT_OFF_S)
            await asyncio.sleep(pause)

    async def _step(self, comparison_id: UUID) -> Standing | None:
        """Take in what has ended and ask for as much as may be at work; None: there is nothing left to do here."""
        standing = await self._store.settle(
            comparison_id, self._lease_id, lost_after_s=self._pace.lost_after_s, lost=LOST
        )
        if standing is None or not self._users_known():
            return standing
        user = self._user_of(standing.user_id)
        reason = self._reason_to_end(standing, user)
        if reason is not None and standing.waiting:
            await self._store.end_waiting(comparison_id, reason)
        if not standing.at_work and (reason is not None or not standing.waiting):
            return None if await self._store.finish(comparison_id, self._lease_id) else standing
        if user is None:
            return standing
        after_s = self._pace.unknown_after_s
        for claimed in await self._store.claim_again(comparison_id, self._lease_id, after_s=after_s):
            await self._ask(comparison_id, user, claimed, is_repeated=True)
        while reason is None and standing.waiting:
            job_id = self._job_ids.mint(user.user_id)
            found = await self._store.claim(
                comparison_id, self._lease_id, job_id, in_flight=self._pace.in_flight
            )  # fmt: skip
            if found is None or not await self._ask(comparison_id, user, found, is_repeated=False):
                break
        return standing

    @staticmethod
    def _reason_to_end(standing: Standing, user: UserUpdated | None) -> dict[str, str] | None:
        if standing.is_cancelled:
            return CANCELLED
        if standing.is_expired:
            return EXPIRED
        return DISABLED if user is None or user.disabled else None

    async def _ask(self, comparison_id: UUID, user: UserUpdated, cell: Claimed, *, is_repeated: bool) -> bool:
        """Publish the cell's job; False where the next one has to wait."""
        try:
            request = ChatRequest.model_validate({**cell.shared, **cell.variant, "prompt": cell.prompt})
        except ValidationError:  # it was taken by a version that allowed more
            await self._store.end(comparison_id, cell, INVALID)
            return True
        metadata = {"comparison": str(comparison_id), "cell": str(cell.cell)}
        try:
            standing = await self._submissions.publish_as(
                user, request, job_id=cell.job_id, metadata=metadata, is_repeated=is_repeated
            )
        except Problem as problem:
            if problem.code == "outcome-unknown":  # its row will tell, or it is published again
                return False
            if problem.status < 429 and problem.code != "no-such-provider":  # it will never be taken
                await self._store.end(comparison_id, cell, {"code": problem.code, "message": problem.detail})
                return True
            limited = problem.status == 429
            await self._store.give_back(comparison_id, cell, is_limited=limited)
            wait_s = problem.extra.get("retry_after_s") or float(problem.headers.get("Retry-After", UNTOLD_WAIT_S))
            await self._store.put_off(comparison_id, wait_s, problem.code)
            return False
        await self._store.accepted(comparison_id, cell)
        if standing is not None and standing.remaining <= 0:  # the next one would be refused
            await self._store.put_off(comparison_id, max(1, standing.reset_s), "rate-limited")
            return False
        return True

    async def cancel(self, job_ids: list[UUID], user_id: str) -> None:
        """Cancel these jobs; what cannot be told now is told again by whoever runs the comparison."""
        try:
            await asyncio.gather(*(self._cancel_requests.publish(job_id, user_id) for job_id in job_ids))
        except (NotAcceptedError, OutcomeUnknownError) as error:
            logger.warning("jobs of a comparison are not cancelled yet: %s", error)


async def _ended(*tasks: "asyncio.Task[None]") -> None:
    """Cancel them and wait, bounded."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=STOP_S)
