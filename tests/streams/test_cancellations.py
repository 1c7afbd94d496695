import asyncio
from uuid import uuid4

import pytest

from processors.cancelled import CANCELLED, USER_DISABLED
from schemas.events import Job
from streams.cancellations import KEPT_MS, Cancellations
from tests.factories import job, job_cancel_requested, user_updated

USERS = {
    "alice": user_updated(),
    "bob": user_updated(user_id="bob"),
    "root": user_updated(user_id="root", role="admin"),
    "former": user_updated(user_id="former", role="admin", disabled=True),
}
AT_MS = 1_700_000_000_000


def ask(cancellations: Cancellations, of: Job, user_id: str = "alice", at_ms: int = AT_MS) -> None:
    cancellations.take(job_cancel_requested(job_id=of.job_id, user_id=user_id), at_ms=at_ms)


@pytest.mark.parametrize(
    ("user_id", "honoured"), [("alice", True), ("root", True), ("bob", False), ("former", False), ("nobody", False)]
)
def test_the_owner_and_admins_are_honoured_and_nobody_else(user_id: str, honoured: bool) -> None:
    cancellations, of = Cancellations(USERS), job()
    ask(cancellations, of, user_id)
    assert cancellations.is_cancelled(of) is honoured
    assert not cancellations.is_cancelled(job())


def test_a_foreign_request_does_not_hide_the_owners() -> None:
    cancellations, of = Cancellations(USERS), job()
    for user_id in ("bob", "alice", "bob"):
        ask(cancellations, of, user_id)
    assert cancellations.is_cancelled(of)


def test_what_is_older_than_the_longest_expiry_is_forgotten() -> None:
    cancellations, old, recent = Cancellations(USERS), job(), job()
    ask(cancellations, recent, at_ms=AT_MS + KEPT_MS)
    ask(cancellations, old, at_ms=AT_MS)
    assert cancellations.is_cancelled(old)
    ask(cancellations, job(), at_ms=AT_MS + KEPT_MS + 1)
    assert not cancellations.is_cancelled(old)
    assert cancellations.is_cancelled(recent)
    assert len(cancellations) == 2


def test_memory_is_bounded_and_the_oldest_go_in_whatever_order_they_came() -> None:
    cancellations = Cancellations(USERS, max_kept=100)
    jobs = [job() for _ in range(300)]
    for age in (*range(0, 300, 2), *range(1, 300, 2)):  # one partition after the other
        for _ in range(2):  # the same again counts once
            ask(cancellations, jobs[age], at_ms=AT_MS - age)
    assert len(cancellations) == 100
    assert [cancellations.is_cancelled(of) for of in jobs] == [True] * 100 + [False] * 200


class Work:
    """Something that hangs, and notes how it ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.was_cut = False

    async def run(self) -> str:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cut = True
            raise
        return "done"


async def test_running_work_is_cut_and_its_caller_goes_on() -> None:
    cancellations, of, work = Cancellations(USERS), job(), Work()
    serving = asyncio.create_task(cancellations.unless_cancelled(of, work.run()))
    await work.began.wait()
    ask(cancellations, of, "bob")
    await asyncio.sleep(0)
    assert not work.was_cut
    ask(cancellations, of)
    assert await serving is None
    assert work.was_cut
    assert cancellations._work == {}


async def test_work_of_a_cancelled_job_is_not_begun() -> None:
    cancellations, of, work = Cancellations(USERS), job(), Work()
    ask(cancellations, of)
    assert await cancellations.unless_cancelled(of, work.run()) is None
    assert not work.began.is_set()


async def test_work_of_a_user_who_is_disabled_is_cut_and_that_of_others_goes_on() -> None:
    users = dict(USERS)
    cancellations, mine, theirs = Cancellations(users), Work(), Work()
    of, others = job(), job(user_id="bob")
    serving = [
        asyncio.create_task(cancellations.unless_cancelled(each, work.run()))
        for each, work in ((of, mine), (others, theirs))
    ]
    await asyncio.gather(mine.began.wait(), theirs.began.wait())
    cancellations.hear_of_user("alice", user_updated(token_epoch=1))  # another password: jobs go on
    await asyncio.sleep(0)
    assert not mine.was_cut
    users["alice"] = user_updated(disabled=True)
    cancellations.hear_of_user("alice", users["alice"])
    assert await serving[0] is None
    assert (mine.was_cut, theirs.was_cut) == (True, False)
    assert (cancellations.why_not(of), cancellations.why_not(others)) == (USER_DISABLED, None)
    late = Work()
    assert await cancellations.unless_cancelled(job(), late.run()) is None
    assert not late.began.is_set()
    serving[1].cancel()
    await asyncio.gather(*serving, return_exceptions=True)


def test_a_job_ends_for_its_user_rather_than_for_a_request() -> None:
    cancellations, of = Cancellations(USERS), job(user_id="former")
    assert cancellations.why_not(of) == USER_DISABLED
    asked = job()
    ask(cancellations, asked)
    assert cancellations.why_not(asked) == CANCELLED
    assert cancellations.why_not(job(user_id="nobody")) is None


@pytest.mark.parametrize("also_cancelled", [False, True])
async def test_a_stop_cancels_the_caller_too(also_cancelled: bool) -> None:
    cancellations, of, work = Cancellations(USERS), job(), Work()
    serving = asyncio.create_task(cancellations.unless_cancelled(of, work.run()))
    await work.began.wait()
    if also_cancelled:
        ask(cancellations, of)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert work.was_cut


async def test_work_that_is_done_or_fails_is_as_if_nothing_were_around_it() -> None:
    cancellations, of = Cancellations(USERS), job(job_id=uuid4())

    async def answer() -> str:
        return "done"

    async def fail() -> str:
        raise ValueError("a bug")

    assert await cancellations.unless_cancelled(of, answer()) == "done"
    with pytest.raises(ValueError, match="a bug"):
        await cancellations.unless_cancelled(of, fail())
    finished = asyncio.create_task(cancellations.unless_cancelled(of, answer()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    ask(cancellations, of)  # too late: what is done stays
    assert await finished == "done"
