"""No text of 20,000 characters takes much longer to sanitize than another one, or more than twice its half."""

from time import thread_time

import pytest

from bench.sanitizing import CHARS, hostile
from processors.filter.normalize_text import clean
from processors.filter.prompt_policy import PromptPolicy

POLICY = PromptPolicy()
KINDS = [name for name, _ in hostile()]
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


@pytest.mark.parametrize("name", KINDS)
def test_a_hostile_text_takes_no_more_than_some_times_as_long_as_a_plain_one(name: str) -> None:
    texts = dict(hostile())
    assert len(texts[name]) <= CHARS
    plain_s, hostile_s = least_s(texts["plain"], texts[name])
    assert hostile_s < SLOWEST * plain_s


@pytest.mark.parametrize("name", KINDS)
def test_twice_the_text_takes_about_twice_the_time(name: str) -> None:
    text = dict(hostile())[name]
    half_s, whole_s = least_s(text[: CHARS // 2], text)
    assert whole_s < GROWTH * max(half_s, 1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_a_document_takes_as_much_longer_as_it_is(name: str) -> None:
    text = dict(hostile())[name]
    once_s, longer_s = least_s(text, text * TIMES)
    assert longer_s < GROWTH_OF_TIMES * max(once_s, 2e-4)
