from collections.abc import Mapping
from datetime import timedelta

import pytest

from ingress.http.problems import Problem
from ingress.submitting.backpressure import Backpressure
from schemas.events import ProviderOffer, StageLoad, WorkerHeartbeat
from tests.factories import NOW

COMPLETION = "generate_completion-openai"
Loads = Mapping[str, tuple[int, int]]  # stage -> lag, finished in the last minute


class Scene:
    """A clock that is moved by hand, and workers that beat."""

    def __init__(self, *, max_wait_s: float = 300, default: str | None = None) -> None:
        self.now = NOW
        self.pressure = Backpressure(
            max_wait_s=max_wait_s, allowed=("openai", "local"), default=default, now=lambda: self.now
        )  # fmt: skip

    def beat(
        self, worker: str = "w", loads: Loads | None = None, *, provider: str = "openai", stopped: bool = False,
        clock_slow_s: float = 0,
    ) -> None:  # fmt: skip
        stages = tuple(
            StageLoad(stage=stage, in_flight=0, lag=lag, finished_last_minute=finished)
            for stage, (lag, finished) in (loads or {}).items()
        )
        beat = WorkerHeartbeat(
            worker=worker, at=self.now - timedelta(seconds=clock_slow_s), roles=("gate", "completion"),
            stages=stages, stopped=stopped, providers=(ProviderOffer(name=provider),),
        )  # fmt: skip
        self.pressure.hear(worker, beat)

    def busy(self, seconds: float, loads: Loads) -> None:
        """The same beat every 5 s for so long."""
        for _ in range(round(seconds / 5)):
            self.now += timedelta(seconds=5)
            self.beat(loads=loads)

    def refused(self, provider: str | None = None) -> Problem | None:
        try:
            self.pressure.check(provider)
        except Problem as problem:
            return problem
        return None


def test_the_waiting_time_is_what_waits_by_what_was_finished_over_all_live_workers() -> None:
    scene = Scene()
    scene.beat("dead", {COMPLETION: (9_999, 1)})
    for _ in range(14):
        scene.now += timedelta(seconds=5)
        scene.beat("a", {COMPLETION: (100, 60)})
        scene.beat("b", {COMPLETION: (200, 30)})
    assert scene.pressure.waiting_s(COMPLETION) == pytest.approx(300 / 90 * 60)
    assert scene.refused() is None
    scene.beat("a", {COMPLETION: (700, 60)})
    refused = scene.refused("openai")
    assert refused is not None
    assert (refused.status, refused.code) == (503, "overloaded")
    assert refused.headers["Retry-After"] == "60"
    assert scene.refused() is not None  # the one that the router would choose


def test_a_burst_after_quiet_refuses_nobody_until_it_is_known_how_fast_it_goes() -> None:
    scene = Scene()
    scene.beat("w", {COMPLETION: (0, 1)})
    scene.beat("w", {COMPLETION: (500, 1)})
    assert scene.refused() is None
    scene.busy(55, {COMPLETION: (500, 90)})
    assert scene.refused() is None
    scene.busy(10, {COMPLETION: (500, 90)})
    assert scene.refused() is not None
    scene.beat("w", {COMPLETION: (0, 90)})
    scene.beat("w", {COMPLETION: (500, 90)})
    assert scene.refused() is None  # it had caught up


def test_a_stage_that_finishes_nothing_refuses_once_that_has_lasted_too_long() -> None:
    scene = Scene()
    scene.busy(295, {"limit_rate": (1, 0)})
    assert scene.refused() is None
    scene.busy(15, {"limit_rate": (1, 0)})
    refused = scene.refused()
    assert refused is not None
    assert refused.headers["Retry-After"] == "5"


def test_what_waits_for_another_provider_is_nobodys_business() -> None:
    scene = Scene(default="openai")
    for _ in range(20):
        scene.now += timedelta(seconds=5)
        scene.beat("a", {COMPLETION: (0, 60)})
        scene.beat("b", {"generate_completion-local": (1_000, 1)}, provider="local")
    assert scene.refused() is None
    assert scene.refused("openai") is None
    assert scene.refused("local") is not None


@pytest.mark.parametrize("stopped", [True, False])
def test_no_live_worker_refuses_after_the_longest_wait_and_one_that_comes_ends_that(stopped: bool) -> None:
    scene = Scene(max_wait_s=30)
    scene.beat(stopped=stopped)
    scene.now += timedelta(seconds=29)
    assert scene.refused() is None
    scene.now += timedelta(seconds=2)
    assert scene.refused() is not None
    assert scene.refused("openai") is not None
    scene.beat("new")
    assert scene.refused() is None
    assert scene.refused("local") is not None  # never seen, for longer than that


def test_before_any_worker_was_heard_of_time_begins_with_the_ingress() -> None:
    scene = Scene(max_wait_s=30)
    assert scene.refused() is None
    scene.now += timedelta(seconds=31)
    assert scene.refused() is not None


def test_workers_that_are_silent_for_an_hour_are_forgotten() -> None:
    scene = Scene()
    for n in range(500):
        scene.beat(f"w{n}")
    scene.now += timedelta(seconds=3601)
    scene.beat()
    assert list(scene.pressure._beats) == ["w"]


def test_a_worker_whose_clock_is_wrong_is_there_all_the_same() -> None:
    scene = Scene(max_wait_s=10)
    for _ in range(20):
        scene.now += timedelta(seconds=5)
        scene.beat(clock_slow_s=600)
        assert scene.refused() is None


def test_a_search_asks_for_nobody_who_answers_and_a_chat_for_nobody_who_searches() -> None:
    scene = Scene(max_wait_s=60)

    def beat_of(*roles: str, lag: int = 0) -> None:
        load = StageLoad(stage="retrieve_context", in_flight=0, lag=lag, finished_last_minute=1)
        scene.pressure.hear("r", WorkerHeartbeat(worker="r", at=scene.now, roles=roles, stages=(load,)))

    def refused(stage: str) -> bool:
        try:
            scene.pressure.check(None, stage=stage)
        except Problem:
            return True
        return False

    for _ in range(30):
        scene.now += timedelta(seconds=5)
        beat_of("gate", "retrieval")
    assert not refused("retrieve_context")
    assert refused("embed_chunks")  # no worker of the role ingestion
    for _ in range(30):
        scene.now += timedelta(seconds=5)
        beat_of("gate", "retrieval", lag=500)
    assert refused("retrieve_context")
