from types import SimpleNamespace
from typing import Any

import pytest

from settings import Settings
from streams.watchdog import Watchdog
from streams.worker import HEARTBEAT_LATE_S, Worker


def test_it_ends_the_process_for_a_loop_that_stands_still_or_records_that_wait_too_long() -> None:
    stalled = [0.0]
    watchdog = Watchdog(stall_timeout_s=60, stalled_for_s=lambda: stalled[0], end=lambda code: None)
    watchdog.tick()
    now = watchdog._ticked_at
    assert not watchdog.check(now + 60)
    assert watchdog.check(now + 60.1)
    stalled[0] = 60.0
    assert not watchdog.check(now)
    stalled[0] = 60.1
    assert watchdog.check(now)


def test_it_ends_the_process_whose_stop_comes_to_no_end() -> None:
    watchdog = Watchdog(stall_timeout_s=60, stalled_for_s=lambda: 1_000.0, end=lambda code: None)
    watchdog.leave_within(38)
    assert watchdog._leaves_at is not None
    assert not watchdog.check(watchdog._leaves_at - 0.1)  # a loop that is stopping does not tick, and takes nothing
    assert watchdog.check(watchdog._leaves_at + 0.1)


class Scene:
    """A worker whose clock, heartbeat and consumer are moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr("streams.worker.monotonic", lambda: self.now)
        self.worker: Any = Worker(Settings(_env_file=None, kafka_bootstrap_servers="localhost:1"), ["sink"])
        self.lane = SimpleNamespace(name="store_outcome", is_full=False)
        self.app = SimpleNamespace(
            lanes={"job-finished": self.lane}, rebalancing=False, consumer=SimpleNamespace(delivered_at=self.now)
        )  # fmt: skip
        self.heartbeat = SimpleNamespace(
            asked_at=self.now, looked_at=self.now, answered_at=self.now, deliverable={"store_outcome": 0}
        )
        vars(self.worker).update(_apps=[self.app], _heartbeat=self.heartbeat)

    def stalled(self, after_s: float, *, deliverable: int, seen: bool = True) -> float:
        self.now += after_s
        self.heartbeat.deliverable = {"store_outcome": deliverable}
        if seen:
            self.heartbeat.asked_at = self.heartbeat.looked_at = self.now
        found: float = self.worker._stalled_for_s()
        return found


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_time_runs_from_when_something_waits_not_from_the_last_delivery(scene: Scene) -> None:
    assert scene.stalled(500, deliverable=0) == 0
    assert scene.stalled(5, deliverable=3) == 0
    assert scene.stalled(40, deliverable=3) == 40
    scene.app.consumer.delivered_at = scene.now
    assert scene.stalled(5, deliverable=3) == 5
    assert scene.stalled(5, deliverable=0) == 0


@pytest.mark.parametrize("took_s", [0.0, 0.5])
def test_what_was_delivered_after_it_was_seen_waiting_is_no_stall(scene: Scene, took_s: float) -> None:
    """And nothing has come since: the picture is some seconds old, and a short `STALL_TIMEOUT` no longer."""
    assert scene.stalled(5, deliverable=3) == 0
    scene.app.consumer.delivered_at = scene.now + 0.1
    scene.heartbeat.looked_at = scene.now + took_s
    for _ in range(10):
        assert scene.stalled(1, deliverable=3, seen=False) == 0
    scene.stalled(0, deliverable=3)  # seen anew: now it does wait
    assert scene.stalled(7, deliverable=3, seen=False) == 7


@pytest.mark.parametrize("why", ["full", "rebalancing"])
def test_hands_that_are_full_and_a_rebalance_are_no_stall(scene: Scene, why: str) -> None:
    scene.stalled(5, deliverable=3)
    scene.lane.is_full, scene.app.rebalancing = why == "full", why == "rebalancing"
    assert scene.stalled(300, deliverable=3) == 0
    scene.lane.is_full = scene.app.rebalancing = False
    assert scene.stalled(1, deliverable=3) == 0


def test_a_cluster_that_does_not_answer_is_no_stall_and_time_begins_anew_after_it(scene: Scene) -> None:
    scene.stalled(5, deliverable=3)
    assert scene.stalled(HEARTBEAT_LATE_S + 1, deliverable=3, seen=False) == 0
    assert scene.stalled(100, deliverable=3) == 0
    assert scene.stalled(5, deliverable=3) == 5


def test_a_consumer_that_cannot_be_asked_is_a_stall_while_the_cluster_answers(scene: Scene) -> None:
    scene.now += HEARTBEAT_LATE_S + 1
    assert scene.stalled(0, deliverable=0, seen=False) == 0
    for after_s, found in ((5, 0), (5, 5), (30, 35)):
        scene.heartbeat.answered_at = scene.now + after_s
        assert scene.stalled(after_s, deliverable=0, seen=False) == found
    assert scene.stalled(1, deliverable=0) == 0
