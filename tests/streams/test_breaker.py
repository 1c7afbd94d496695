"""A breaker opens for what only fails, and closes when one call works; who may open it for others."""

import asyncio
from typing import Any

import pytest

from processors.errors import PermanentError, RetryableError
from streams.breaker import Breaker
from streams.guard import SILENT_S, ProviderGuard
from streams.pace import Pace

COOL_DOWN_S = 30.0
AWAY = RetryableError("provider-unreachable", "away")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Speaks:
    def __init__(self, *, has_begun: bool = False) -> None:
        self.has_begun = has_begun


class Scene:
    """A guard whose calls end as told; time passes by hand."""

    def __init__(self) -> None:
        self.clock = Clock()
        breaker = Breaker("openai", failures=5, after_s=3, cool_down_s=COOL_DOWN_S, clock=self.clock)
        self.guard = ProviderGuard("openai", breaker, Pace(clock=self.clock), clock=self.clock)

    def call(self, error: BaseException | None = None, *, lasts_s: float = 1.0, has_begun: bool = False) -> None:
        execution: Any = Speaks(has_begun=has_begun)
        call = self.guard.calling(execution)
        call.__enter__()
        self.clock.now += lasts_s
        call.__exit__(type(error) if error else None, error, None)

    def refused(self) -> RetryableError:
        with pytest.raises(RetryableError) as caught:
            self.call()
        return caught.value

    @property
    def state(self) -> str:
        return self.guard.breaker.state

    def opened(self) -> "Scene":
        for _ in range(5):
            self.call(AWAY)
        assert self.state == "open"
        return self


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("code", ["provider-unreachable", "provider-http-500", "provider-http-503"])
def test_it_opens_after_so_many_failures_in_a_row_that_last(scene: Scene, code: str) -> None:
    for n in range(5):
        assert scene.state == "closed", n
        scene.call(RetryableError(code, "x"))
    error = scene.refused()
    assert (error.code, error.retry_after_s) == ("breaker-open", COOL_DOWN_S)


def test_a_moment_in_which_many_fail_at_once_does_not_open_it(scene: Scene) -> None:
    for _ in range(500):
        scene.call(AWAY, lasts_s=0.001)
    assert scene.state == "closed"
    scene.call()
    for _ in range(4):
        scene.call(AWAY)
    assert scene.state == "closed"  # the row began anew


def test_after_its_cool_down_one_call_tries_and_closes_it(scene: Scene) -> None:
    scene.opened()
    scene.clock.now += COOL_DOWN_S
    assert scene.state == "half-open"
    execution: Any = Speaks()
    with scene.guard.calling(execution):
        assert scene.refused().code == "breaker-open"  # only one
        assert scene.refused().retry_after_s == 1
    assert scene.state == "closed"
    scene.call()


def test_a_try_that_fails_opens_it_for_as_long_again(scene: Scene) -> None:
    scene.opened()
    scene.clock.now += COOL_DOWN_S
    scene.call(AWAY)
    assert scene.state == "open"
    assert scene.refused().retry_after_s == COOL_DOWN_S


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyError("a bug")])
def test_a_try_that_says_nothing_leaves_it_to_the_next(scene: Scene, error: BaseException) -> None:
    scene.opened()
    scene.clock.now += COOL_DOWN_S
    scene.call(error)
    assert scene.state == "half-open"
    scene.call()
    assert scene.state == "closed"


@pytest.mark.parametrize("error", [PermanentError("provider-http-400", "x"), RetryableError("provider-http-429", "x")])
def test_a_try_that_is_refused_is_answered_all_the_same(scene: Scene, error: Exception) -> None:
    scene.opened()
    scene.clock.now += COOL_DOWN_S
    scene.call(error)
    assert scene.state == "closed"


@pytest.mark.parametrize(
    ("error", "lasts_s", "has_begun"),
    [
        (PermanentError("provider-http-400", "x"), 1, False), (PermanentError("provider-http-401", "x"), 1, False),
        (PermanentError("context-too-long", "x"), 1, False), (KeyError("a bug"), 1, False),
        (RetryableError("timeout", "x"), SILENT_S - 1, False), (asyncio.CancelledError(), SILENT_S - 1, False),
        (asyncio.CancelledError(), SILENT_S + 1, True),
    ],
)  # fmt: skip
def test_nobody_opens_it_for_others(scene: Scene, error: BaseException, lasts_s: float, has_begun: bool) -> None:
    """By requests that are refused, by short timeouts, by leaving, by asking for long answers."""
    for _ in range(100):
        scene.call(error, lasts_s=lasts_s, has_begun=has_begun)
    assert scene.state == "closed"


@pytest.mark.parametrize("error", [asyncio.CancelledError(), RetryableError("timeout", "x")])
def test_silence_counts_whoever_ended_it(scene: Scene, error: BaseException) -> None:
    for _ in range(5):
        scene.call(error, lasts_s=SILENT_S)
    assert scene.state == "open"


def test_failures_of_calls_from_before_do_not_prolong_it(scene: Scene) -> None:
    execution: Any = Speaks()
    older = scene.guard.calling(execution)
    older.__enter__()
    scene.opened()
    scene.clock.now += COOL_DOWN_S - 1
    older.__exit__(RetryableError, AWAY, None)
    scene.clock.now += 1
    assert scene.state == "half-open"


def test_jobs_that_will_not_be_asked_for_need_no_place(scene: Scene) -> None:
    scene.guard.pace = Pace(60, clock=scene.clock)
    scene.opened()
    while not scene.guard.pace.begin():
        pass
    assert scene.guard.begin() == 0  # they go elsewhere, or are put off
    scene.guard.breaker.good()
    assert scene.guard.begin() > 0


def test_a_429_sets_the_pace_back_and_the_next_call_waits(scene: Scene) -> None:
    scene.call(RetryableError("provider-http-429", "x", retry_after_s=2), lasts_s=0)
    assert scene.guard.begin() == 2
    scene.call(RetryableError("provider-http-429", "x", retry_after_s=90), lasts_s=0)
    assert scene.guard.begin() == 5  # it was told to one job; another looks before that
    assert scene.state == "closed"
