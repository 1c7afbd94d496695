"""No text of 20,000 characters takes much longer to sanitize than another one, or more than twice its half."""

from time import thread_time

import pytest

from bench.sanitizing import CHARS, hostile
from processors.filter.normalize_text import clean
from processors.filter.prompt_policy import PromptPolicy

POLICY = PromptPolicy()
SLOWEST = 20  # times what a plain text takes, which is a tenth of the time that there is
GROWTH = 3.2  # 2 where it is linear, 4 where it is quadratic
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


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """By what makes them hostile."""
    return dict(hostile())


def test_a_hostile_text_takes_no_more_than_some_times_as_long_as_a_plain_one(texts: dict[str, str]) -> None:
    assert all(len(text) <= CHARS for text in texts.values())
    times = {name: least_s(texts["plain"], text) for name, text in texts.items()}
    assert not {name: (plain_s, s) for name, (plain_s, s) in times.items() if s >= SLOWEST * plain_s}


def test_twice_the_text_takes_about_twice_the_time(texts: dict[str, str]) -> None:
    times = {name: least_s(text[: CHARS // 2], text) for name, text in texts.items()}
    assert not {name: (half_s, s) for name, (half_s, s) in times.items() if s >= GROWTH * max(half_s, 1e-4)}


def test_a_document_takes_as_much_longer_as_it_is(texts: dict[str, str]) -> None:
    times = {name: least_s(text, text * TIMES) for name, text in texts.items()}
    assert not {name: (once_s, s) for name, (once_s, s) in times.items() if s >= GROWTH_OF_TIMES * max(once_s, 2e-4)}
