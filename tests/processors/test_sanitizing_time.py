"""No text of 20,000 characters takes much longer to sanitize than another one, or more than twice its half."""

import statistics
from collections.abc import Callable
from time import thread_time

import pytest

from bench.sanitizing import CHARS, hostile
from processors.normalize_text import clean
from processors.prompt_policy import PromptPolicy

POLICY = PromptPolicy()
KINDS = [name for name, _ in hostile()]
SLOWEST = 20  # times what a plain text takes, which is a tenth of the time that there is
GROWTH = 3.2  # of four times the text it is 4 where linear, 16 where quadratic; here of twice


def cpu_s(act: Callable[[], object]) -> float:
    """The least of several: what others do on the machine does not count."""
    times = []
    for _ in range(5):
        began = thread_time()
        act()
        times.append(thread_time() - began)
    return min(times)


def of(text: str) -> float:
    return cpu_s(lambda: POLICY.verdict(clean(text)))


@pytest.fixture(scope="module")
def plain_s() -> float:
    return of(dict(hostile())["plain"])


@pytest.mark.parametrize("name", KINDS)
def test_a_hostile_text_takes_no_more_than_some_times_as_long_as_a_plain_one(name: str, plain_s: float) -> None:
    text = dict(hostile())[name]
    assert len(text) <= CHARS
    assert of(text) < SLOWEST * plain_s


@pytest.mark.parametrize("name", KINDS)
def test_twice_the_text_takes_about_twice_the_time(name: str) -> None:
    text = dict(hostile())[name]
    ratios = [of(text) / max(of(text[: CHARS // 2]), 1e-4) for _ in range(3)]
    assert statistics.median(ratios) < GROWTH
