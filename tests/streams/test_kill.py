"""Stock Faust loses events on kill -9; our consumer does not. One partition, deterministic cases."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.conftest import KafkaForTests
from tests.waiting import until

pytestmark = pytest.mark.integration
SLOW, QUICK = 600, 0


class Scene:
    """One topic, one group, workers that are started and killed."""

    def __init__(self, kafka: KafkaForTests, prefix: str, folder: Path) -> None:
        self.kafka, self.topic, self.group, self.folder = kafka, f"{prefix}work", f"{prefix}group", folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self.logs = 0

    async def send(self, events: list[dict[str, object]]) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.kafka.bootstrap) as producer:
            for event in events:
                await producer.send_and_wait(self.topic, json.dumps(event).encode(), partition=0)

    def start(self, consumer: str) -> tuple["subprocess.Popen[bytes]", Callable[[str], list[int]]]:
        self.logs += 1
        log = self.folder / f"log-{self.logs}"
        environment = {
            **os.environ, "BROKER": self.kafka.bootstrap, "GROUP": self.group, "TOPIC": self.topic,
            "LOG": str(log), "CONSUMER": consumer,
        }  # fmt: skip
        with (self.folder / f"err-{self.logs}").open("wb") as errors:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.streams.kill_app"],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        self.workers.append(worker)

        def noted(word: str) -> list[int]:
            lines = log.read_text().splitlines() if log.exists() else []
            return [int(line.split()[1]) for line in lines if line.startswith(word)]

        return worker, noted

    async def committed(self) -> int | None:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka.bootstrap, group_id=self.group)
        await consumer.start()
        try:
            return await consumer.committed(TopicPartition(self.topic, 0))  # type: ignore[no-any-return]
        finally:
            await consumer.stop()

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait(10)


@pytest.fixture
async def scene(kafka: KafkaForTests, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(kafka, topic_prefix, tmp_path)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(scene.topic, 1, 1), NewTopic(scene.topic + "-out", 1, 1)])
    await admin.close()
    yield scene
    scene.close()


def events(slow: int, total: int) -> list[dict[str, object]]:
    return [{"i": n, "s": SLOW if n == slow else QUICK} for n in range(total)]


async def kill(worker: "subprocess.Popen[bytes]") -> None:
    worker.kill()
    await asyncio.to_thread(worker.wait, 10)


async def test_case_a_stock_faust_commits_past_the_first_event_in_flight(scene: Scene) -> None:
    await scene.send(events(slow=0, total=21))
    worker, noted = scene.start("stock")
    await until(lambda: len(noted("done")) == 20, within_s=60)

    async def all_committed() -> bool:
        return await scene.committed() == 21

    await until(all_committed)  # offset 0 runs, and nobody will ever see it again
    await kill(worker)


async def test_case_a_ours_delivers_the_first_event_in_flight_again(scene: Scene) -> None:
    await scene.send(events(slow=0, total=21))
    worker, noted = scene.start("ours")
    await until(lambda: len(noted("done")) == 20, within_s=60)
    await kill(worker)
    assert await scene.committed() in (None, 0)
    _, noted_again = scene.start("ours")
    assert 0 in await until(lambda: noted_again("start"), within_s=60)


async def test_case_d_stock_faust_loses_an_event_behind_a_commit(scene: Scene) -> None:
    await scene.send(events(slow=8, total=26))
    worker, noted = scene.start("stock")
    await until(lambda: len(noted("done")) == 25, within_s=60)

    async def all_committed() -> bool:
        return await scene.committed() == 26

    await until(all_committed)  # offset 8 runs, and nobody will ever see it again
    await kill(worker)


async def test_case_d_ours_runs_again_only_what_was_in_flight(scene: Scene) -> None:
    await scene.send(events(slow=8, total=26))
    worker, noted = scene.start("ours")
    await until(lambda: len(noted("done")) == 25, within_s=60)

    async def eight_committed_with_all_above_it() -> bool:
        consumer = AIOKafkaConsumer(bootstrap_servers=scene.kafka.bootstrap, group_id=scene.group)
        await consumer.start()
        try:
            found = await consumer._coordinator.fetch_committed_offsets([TopicPartition(scene.topic, 0)])
        finally:
            await consumer.stop()
        return any(at.offset == 8 and at.metadata.endswith("1.11") for at in found.values())

    await until(eight_committed_with_all_above_it)  # gap 1, run of 17 in hex
    await kill(worker)
    _, noted_again = scene.start("ours")
    await until(lambda: noted_again("start"), within_s=60)
    await scene.send([{"i": 26, "s": QUICK}])
    await until(lambda: 26 in noted_again("done"))
    assert sorted(noted_again("start")) == [8, 26]


async def test_a_handler_that_raises_ends_the_process_unacknowledged(scene: Scene) -> None:
    await scene.send([{"i": n, "s": QUICK, **({"x": 1} if n == 8 else {})} for n in range(12)])
    worker, noted = scene.start("ours")
    assert await asyncio.to_thread(worker.wait, 60) == 70
    assert await scene.committed() == 8
    assert 8 not in noted("done")


async def test_sigterm_finishes_what_is_in_hand_and_repeats_nothing(scene: Scene) -> None:
    await scene.send([{"i": n, "s": 1} for n in range(20)])
    worker, noted = scene.start("ours")
    await until(lambda: len(noted("start")) == 20, within_s=60)
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 60) == 0
    assert len(noted("done")) == 20
    assert await scene.committed() == 20
