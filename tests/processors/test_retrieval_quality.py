"""The set that docs/retrieval.md tells figures of, and how they are counted."""

from collections import Counter
from uuid import uuid4

import pytest

from bench.retrieval_quality.manuals import questions
from bench.retrieval_quality.scores import ndcg, recall


def test_the_set_is_as_large_as_we_say() -> None:
    asked = questions()
    assert len({question.text for question in asked}) == len(asked) == 320
    assert Counter(question.language for question in asked) == {"en": 160, "ru": 160}
    assert set(Counter(question.page for question in asked).values()) == {4}


def test_what_stands_further_up_is_worth_more() -> None:
    right, wrong = uuid4(), [uuid4() for _ in range(20)]
    assert (recall([right], {right}), ndcg([right], {right})) == (1, 1)
    assert (recall(wrong, {right}), ndcg(wrong, {right})) == (0, 0)
    third = [*wrong[:2], right, *wrong[2:]]
    assert (recall(third, {right}), ndcg(third, {right})) == (1, pytest.approx(0.5))
    assert recall([*wrong[:5], right], {right}) == 0
    assert ndcg([*wrong[:10], right], {right}) == 0
    other = uuid4()
    assert recall([right, *wrong], {right, other}) == 0.5
    assert ndcg([right, other], {right, other}) == 1
