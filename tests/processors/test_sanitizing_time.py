"""No text of 20,000 characters takes much longer to sanitize than another one, or more than twice its half."""

from collections.abc import Callable
from time import thread_time

import pytest

from bench.sanitizing import CHARS, hostile
from processors.filter.normalize_text import clean
from processors.filter.prompt_policy import PromptPolicy

POLICY = PromptPolicy()
SLOWEST = 20  # times what a plain text takes, which is a tenth of the time that there is
GROWTH = 3.2  # 2 where it is linear, 4 where it is quadratic
LOOKS = 4  # where a text seems slow: a cache that others empty slows one for a while, a quadratic loop for ever
TIMES, GROWTH_OF_TIMES = 4, 8  # so long are tools' observations and documents; 16 where it is quadratic


def least_s(*texts: str) -> list[float]:
    """CPU of each, the least of several, taken in turns: what others do on the machine counts for all or for none."""
    times: list[list[float]] = [[] for _ in texts]
    for _ in range(5):
        for text, found in zip(texts, times, strict=True):
            began = thread_time()
            POLICY.verdict(clean(text))
            found.append(thread_time() - began)
    return [min(found) for found in times]


def slow(texts: dict[str, str], pair: Callable[[str], tuple[str, str]], growth: float, floor_s: float) -> object:
    """Those of which the second text of the pair takes so many times as long as the first, at each look."""
    suspects: dict[str, list[float]] = {name: [] for name in texts}
    for _ in range(LOOKS):
        times = {name: least_s(*pair(texts[name])) for name in suspects}
        suspects = {name: found for name, found in times.items() if found[1] >= growth * max(found[0], floor_s)}
    return suspects


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """By what makes them hostile."""
    return dict(hostile())


def test_a_hostile_text_takes_no_more_than_some_times_as_long_as_a_plain_one(texts: dict[str, str]) -> None:
    assert all(len(text) <= CHARS for text in texts.values())
    assert not slow(texts, lambda text: (texts["plain"], text), SLOWEST, 0)


def test_twice_the_text_takes_about_twice_the_time(texts: dict[str, str]) -> None:
    assert not slow(texts, lambda text: (text[: CHARS // 2], text), GROWTH, 1e-4)


def test_a_document_takes_as_much_longer_as_it_is(texts: dict[str, str]) -> None:
    assert not slow(texts, lambda text: (text, text * TIMES), GROWTH_OF_TIMES, 2e-4)
