import asyncio
import os
import signal

import pytest

from settings import Settings
from streams import worker as worker_module
from streams.worker import Worker
from tests.conftest import SECRET
from tests.waiting import until
from transport.admin import Difference, TopicsError


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


async def test_a_topic_that_is_deleted_is_told_and_ends_the_process_at_the_second_look(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    missing = Difference("job-admitted", "topic", "", None, "create")
    answers: list[list[Difference] | Exception] = [[], [missing], TopicsError("it is away"), [missing], []]
    told: list[tuple[str | None, bool]] = []
    worker = Worker(
        Settings(_env_file=None, kafka_bootstrap_servers="127.0.0.1:1", jwt_secret_key=SECRET), ["gate"]
    )  # fmt: skip

    async def unusable(*_: object) -> list[Difference]:
        told.append((worker._current_problems().get("topics"), worker._has_lost_a_topic))
        if not answers:
            raise asyncio.CancelledError
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(worker_module, "TOPICS_EVERY_S", 0)
    monkeypatch.setattr(worker_module, "unusable", unusable)
    with pytest.raises(asyncio.CancelledError):
        await worker._watch_topics()
    said = "the topics are not what this version needs: job-admitted: is missing; run `assistant topics apply`"
    assert told == [(None, False), (None, False), (said, False), (said, False), (said, True), (None, False)]
    assert caplog.text.count(said) == 1
