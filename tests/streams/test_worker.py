import asyncio
import os
import signal

import pytest

from settings import Settings
from streams.worker import Worker
from tests.conftest import SECRET
from tests.waiting import until


async def test_a_worker_that_waits_for_its_tables_stops_when_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Kafka went away between the look at the topics and the first read."""

    async def topics_are_right(worker: Worker) -> None:
        return None

    monkeypatch.setattr(Worker, "_check_topics", topics_are_right)
    worker = Worker(
        Settings(_env_file=None, kafka_bootstrap_servers="127.0.0.1:1", jwt_secret_key=SECRET), ["gate"]
    )  # fmt: skip
    running = asyncio.create_task(worker.run())
    await until(lambda: "cannot be read yet" in caplog.text)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 10)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)
