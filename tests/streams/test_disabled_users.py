"""What waits of a user who was disabled is ended from its rows: once, by who would store it, and nobody else's."""

from collections.abc import AsyncIterator

import pytest

from processors.cancelled import USER_DISABLED
from schemas.events import Job, JobFinished, UserUpdated
from schemas.topics import Catalog
from sinks.pool import Pool
from sinks.postgres import JobStore
from streams.disabled_users import GRACE_S, LOOK_AT_ALL_EVERY_S, WATCHED_S, DisabledUsers
from streams.encode import Encoder
from tests.factories import NOW, job, user_updated
from tests.streams.test_deadlines import TOPIC, FakeApp, pending

pytestmark = pytest.mark.integration


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=2)
    yield pool
    await pool.close()


class Scene:
    def __init__(self, pool: Pool, app: FakeApp) -> None:
        self.app, self.s = app, 1000.0
        self.users: dict[str, UserUpdated] = {"alice": user_updated(), "bob": user_updated(user_id="bob")}
        self.ending = DisabledUsers(
            app,  # type: ignore[arg-type]  # a fake
            Encoder(Catalog.load()), JobStore(pool), self.users, finished_topic=TOPIC, now=lambda: NOW,
            clock=lambda: self.s,
        )  # fmt: skip

    def disable(self, user_id: str = "alice", *, disabled: bool = True) -> None:
        self.users[user_id] = user_updated(user_id=user_id, disabled=disabled)
        self.ending.hear(user_id, self.users[user_id])

    async def after(self, seconds: float) -> int:
        self.s += seconds
        return await self.ending.end_theirs()


def ids(*jobs: Job) -> set[str]:
    return {str(of.job_id) for of in jobs}


async def test_all_that_waits_of_theirs_is_ended_and_nothing_of_others(pool: Pool) -> None:
    scene = Scene(pool, FakeApp())
    theirs, others = [job(run=2, metadata={"a": "b"}) for _ in range(3)], [job(user_id="bob") for _ in range(3)]
    await pending(pool, *theirs, *others)
    assert await scene.after(LOOK_AT_ALL_EVERY_S) == 0
    scene.disable()
    assert await scene.after(GRACE_S / 2) == 0  # who works on it may say so
    assert await scene.after(GRACE_S) == 3
    assert scene.app.ended() == ids(*theirs)
    finished = JobFinished.model_validate_json(scene.app.published[0].value or b"")
    assert finished.error is not None
    assert finished.error.code == USER_DISABLED
    assert finished.job in theirs
    assert await scene.after(1) == 0  # it was said, and is on its way
    assert await scene.after(WATCHED_S) == 3  # no row has heard of it for so long: it may be lost


async def test_a_row_that_is_written_later_is_ended_too(pool: Pool) -> None:
    scene = Scene(pool, FakeApp())
    await scene.after(LOOK_AT_ALL_EVERY_S)
    scene.disable()
    assert await scene.after(GRACE_S) == 0
    await pending(pool, job())
    assert await scene.after(1) == 1
    await scene.after(WATCHED_S)
    await pending(pool, late := job())
    assert await scene.after(1) == 0
    assert await scene.after(LOOK_AT_ALL_EVERY_S) == 2  # the one whose end was lost, if it was, too
    assert ids(late) < scene.app.ended()


async def test_whoever_is_enabled_again_is_left_alone(pool: Pool) -> None:
    scene = Scene(pool, FakeApp())
    await pending(pool, job())
    await scene.after(LOOK_AT_ALL_EVERY_S)
    scene.disable()
    scene.disable(disabled=False)
    assert await scene.after(GRACE_S) == 0
    assert await scene.after(LOOK_AT_ALL_EVERY_S) == 0


async def test_a_worker_that_starts_ends_what_nobody_else_has(pool: Pool) -> None:
    scene = Scene(pool, FakeApp())
    scene.users["alice"] = user_updated(disabled=True)
    await pending(pool, job())
    assert await scene.after(0) == 1


async def test_two_replicas_share_the_jobs_and_a_rebalancing_one_ends_none(pool: Pool) -> None:
    one, other = Scene(pool, FakeApp()), Scene(pool, FakeApp())
    one.app.consumer.owned, other.app.consumer.owned = {0, 2}, {1, 3}
    jobs = [job() for _ in range(20)]
    await pending(pool, *jobs)
    one.disable()
    other.disable()
    one.app.rebalancing = True
    assert await one.after(GRACE_S) == 0
    one.app.rebalancing = False
    counts = [await one.after(GRACE_S), await other.after(GRACE_S)]
    assert sum(counts) == 20
    assert all(counts)
    assert one.app.ended() | other.app.ended() == ids(*jobs)
