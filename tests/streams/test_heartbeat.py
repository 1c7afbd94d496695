"""What a worker tells of itself, and what it learns of its clock from the answer."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from schemas.envelope import Record
from schemas.events import ProviderOffer, WorkerHeartbeat
from settings import Settings
from streams import heartbeat as heartbeat_module
from streams.app import StreamApp
from streams.heartbeat import MAX_CLOCK_SKEW_S, Heartbeat
from streams.worker import HEARTBEAT_LATE_S, Worker
from tests.conftest import SECRET
from tests.waiting import until
from transport.clients import KafkaAccess

TOPIC = TP("completion-requested-openai", 2)


class FakeApp:
    """Of a StreamApp what a heartbeat asks; the broker's clock is `ahead_s` of ours."""

    role, rebalancing = "completion", False

    def __init__(self, *, ahead_s: float = 0.0, log_append_time: bool = True) -> None:
        self.ahead_s, self.timestamp_type = ahead_s, 1 if log_append_time else 0
        self.lane = SimpleNamespace(name="generate_completion-openai", pending=3, finished=0, is_busy=False)
        self.lanes = {TOPIC.topic: self.lane}
        self.sent: list[Record] = []
        self.away = False
        self.consumer: Any = self

    def assignment(self) -> set[TP]:
        return {TOPIC}

    async def backlog(self) -> dict[TP, tuple[int, int]]:
        return {TOPIC: (40, 38)}

    async def hand_over(self, record: Record) -> "asyncio.Future[Any]":
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.away:
            answer.set_exception(KafkaConnectionError())
        else:
            self.sent.append(record)
            timestamp = int((time.time() + self.ahead_s) * 1000)
            answer.set_result(SimpleNamespace(timestamp_type=self.timestamp_type, timestamp=timestamp))
        return answer

    def beats(self) -> list[WorkerHeartbeat]:
        return [WorkerHeartbeat.model_validate_json(record.value or b"") for record in self.sent]


def heartbeat(app: Any) -> Heartbeat:
    offers = [ProviderOffer(name="openai", models=("gpt-4o-mini",))]
    return Heartbeat([app], "worker-heartbeat", worker="w-1", http="http://127.0.0.1:1", offers=lambda: offers)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "PERIOD_S", 0.02)


@pytest.mark.usefixtures("quick")
async def test_it_says_what_the_worker_has_and_good_bye_at_the_end() -> None:
    app = FakeApp()
    beating = heartbeat(app)
    beating.start()
    await until(lambda: len(app.sent) >= 2)
    app.lane.finished = 7
    told = len(app.sent)
    await until(lambda: len(app.sent) > told + 1)
    await beating.stop()
    *_, last, good_bye = app.beats()
    assert app.sent[0].key == b"w-1"
    assert (last.roles, last.partitions, last.http) == (("completion",), {TOPIC.topic: (2,)}, "http://127.0.0.1:1")
    assert last.providers == (ProviderOffer(name="openai", models=("gpt-4o-mini",)),)
    (load,) = last.stages
    assert (load.stage, load.in_flight, load.lag, load.finished_last_minute) == ("generate_completion-openai", 3, 40, 7)
    assert (beating.lags, beating.deliverable) == ({app.lane.name: 40}, {app.lane.name: 38})
    assert not last.stopped
    assert good_bye.stopped


async def test_a_worker_is_told_of_before_the_first_look_at_the_brokers() -> None:
    app, looking = FakeApp(), asyncio.Event()

    async def hang() -> dict[TP, tuple[int, int]]:
        looking.set()
        await asyncio.sleep(3600)
        return {}

    app.backlog = hang  # type: ignore[method-assign]  # brokers that do not answer
    beating = heartbeat(app)
    beating.start()
    await asyncio.wait_for(looking.wait(), 5)
    assert len(app.sent) == 1
    await beating.stop()


def test_a_look_may_take_as_long_as_the_brokers_may() -> None:
    app = StreamApp("sink", KafkaAccess("localhost:1"), group="g")
    assert app.conf.broker_request_timeout < heartbeat_module.LOOK_TIMEOUT_S


@pytest.mark.usefixtures("quick")
async def test_a_look_that_takes_long_holds_up_no_beat_and_no_other_apps_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a worker that is slow to learn what waits is taken for one that is gone, or for one that hangs."""
    monkeypatch.setattr(heartbeat_module, "BEAT_WITHIN_S", 0.02)
    slow, other = FakeApp(), FakeApp()
    asked, answered, backlog = asyncio.Event(), asyncio.Event(), slow.backlog

    async def late() -> dict[TP, tuple[int, int]]:
        await answered.wait()
        return await backlog()

    async def asked_for() -> dict[TP, tuple[int, int]]:
        asked.set()
        return {}

    slow.backlog, other.backlog = late, asked_for  # type: ignore[method-assign]
    beating = heartbeat(slow)
    beating._apps = [slow, other]  # type: ignore[list-item]
    looked_at = beating.looked_at
    beating.start()
    await asyncio.wait_for(asked.wait(), 5)
    await until(lambda: len(slow.sent) > 3)
    assert beating.looked_at == looked_at
    answered.set()
    await until(lambda: beating.looked_at > looked_at)
    assert beating.deliverable == {slow.lane.name: 38}
    await beating.stop()


@pytest.mark.usefixtures("quick")
async def test_it_outlives_a_cluster_that_is_away() -> None:
    app = FakeApp()
    app.away = True
    beating = heartbeat(app)
    beating.start()
    await asyncio.sleep(0)
    app.away = False
    assert beating.answered_at is None
    await until(lambda: app.sent)
    assert beating.answered_at is not None
    await beating.stop()


def worker_with(beating: Heartbeat) -> Worker:
    settings = Settings(_env_file=None, kafka_bootstrap_servers="nowhere:1", jwt_secret_key=SECRET)
    worker = Worker(settings, ["completion"])
    worker._problems.clear()
    worker._heartbeat = beating
    return worker


@pytest.mark.parametrize(("off_s", "right"), [(-29, True), (29, True), (-31, False), (31, False), (-3600, False)])
async def test_a_worker_whose_clock_is_off_is_not_ready_and_expires_nothing(off_s: float, right: bool) -> None:
    app = FakeApp(ahead_s=-off_s)
    beating = heartbeat(app)
    await beating._beat()
    assert beating.clock_skew_s == pytest.approx(off_s, abs=1)
    assert (abs(beating.clock_skew_s) <= MAX_CLOCK_SKEW_S) is right
    worker = worker_with(beating)
    assert worker._clock() is right  # what `serve` and `route_job` ask before they expire anything
    problems = worker._current_problems()
    assert ("clock" in problems) is not right
    if not right:
        assert f"{off_s:.0f} s off" in problems["clock"]


async def test_a_time_that_a_client_chose_says_nothing_of_the_clock() -> None:
    app = FakeApp(ahead_s=3600, log_append_time=False)
    beating = heartbeat(app)
    await beating._beat()
    assert beating.clock_skew_s == 0


async def test_a_worker_whose_beats_are_not_answered_is_not_ready() -> None:
    beating = heartbeat(FakeApp())
    worker = worker_with(beating)
    assert worker._current_problems().keys() == {"heartbeat"}  # before that nobody sends it any work
    await beating._beat()
    assert worker._current_problems() == {}
    assert beating.answered_at is not None
    beating.answered_at -= HEARTBEAT_LATE_S + 1
    assert worker._current_problems().keys() == {"kafka"}


async def test_a_worker_whose_tables_are_not_followed_is_not_ready() -> None:
    beating = heartbeat(FakeApp())
    await beating._beat()
    worker = worker_with(beating)
    worker._tables["user-updated"] = table = SimpleNamespace(is_running=True)  # type: ignore[assignment]
    assert worker._current_problems() == {}
    table.is_running = False
    assert worker._current_problems().keys() == {"user-updated"}


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
async def test_a_clock_that_jumps_is_known_to_be_wrong_before_the_next_beat(
    jump_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then every job that waits would be taken for expired, and ended."""
    beating = heartbeat(FakeApp())
    await beating._beat()
    assert abs(beating.clock_skew_s) < MAX_CLOCK_SKEW_S
    jumped = time.time() + jump_s
    monkeypatch.setattr(heartbeat_module, "time", lambda: jumped)
    assert beating.clock_skew_s == pytest.approx(jump_s, abs=1)
