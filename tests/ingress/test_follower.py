from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from ingress.follower import Follower
from processors.errors import PermanentError
from schemas.topics import Catalog
from tests.conftest import KafkaForTests
from tests.factories import job_finished
from tests.waiting import until

pytestmark = pytest.mark.integration


class BrokenStore:
    """Looks nothing up."""

    def __init__(self) -> None:
        self.asked = 0

    async def finished(self, job_ids: object) -> list[object]:
        self.asked += 1
        raise PermanentError("row-refused", "a bug")


async def test_a_follower_outlives_a_bug_and_says_so(
    kafka: KafkaForTests, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingress.follower.LOOK_UP_AFTER_S", 0)
    monkeypatch.setattr("ingress.follower.LOOK_UP_EVERY_S", 0.01)
    topic = catalog.full_name("job-finished")
    store = BrokenStore()
    follower = Follower(
        kafka.access, progressed=catalog.full_name("job-progressed"), finished=topic, store=store,  # type: ignore[arg-type]
    )  # fmt: skip
    take = follower._take_finished

    def fail_once(key: bytes, value: bytes) -> None:
        monkeypatch.setattr(follower, "_take_finished", take)
        raise ValueError("a bug")

    monkeypatch.setattr(follower, "_take_finished", fail_once)
    follower.start()
    await until(lambda: follower.problem is None)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await producer.send_and_wait(topic, b"{}", key=b"k")
        await until(lambda: follower.problem is not None and "a bug" in follower.problem)
        await until(lambda: follower.problem is None)
        job_id = uuid4()
        with follower.watch(job_id) as watch:
            await until(lambda: store.asked >= 2)  # the look-up, too, goes on after a bug
            value = job_finished(job_id=job_id).model_dump_json().encode()
            await producer.send_and_wait(topic, value, key=str(job_id).encode())
            await until(watch.finished.done)
    await follower.stop()
