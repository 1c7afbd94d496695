"""Two lists become one, by how far their scores are apart."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from processors.documents.document_ports import Found
from schemas.requests import SearchMode
from tests.factories import chunk
from vectors.fusion import fuse

NOBODY = UUID(int=0)


@dataclass
class Point:
    id: str
    score: float
    payload: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        version, _, index = self.id.partition("#")  # `book#3`: its fourth chunk
        self.payload = {"chunk": {"text": self.id, "index": int(index or 0)}, "id": self.id, "version_id": version}


def read(payload: dict[str, Any], /, *, score: float, similarity: float | None, has_keyword: bool) -> Found:
    return Found(NOBODY, NOBODY, payload["id"], chunk(), score, similarity, has_keyword)


def fused(dense: dict[str, float], keyword: dict[str, float], *, mode: SearchMode = "hybrid") -> list[Found]:
    lists = [[Point(one, score) for one, score in scores.items()] for scores in (dense, keyword)]
    return fuse(*lists, mode=mode, limit=10, words=frozenset(), read=read)


def order(*args: Any, **more: Any) -> str:
    return "".join(one.source for one in fused(*args, **more))


COSINES = {"a": 0.9, "b": 0.8, "c": 0.79, "d": 0.78, "e": 0.77}


def test_what_both_lists_have_comes_first() -> None:
    assert order(COSINES, {"c": 9.0, "x": 8.9})[0] == "c"


def test_a_word_that_is_just_in_it_moves_nothing_past_what_is_far_more_alike() -> None:
    assert order(COSINES, {"x": 9.0, "e": 0.5})[:2] == "xa"
    assert order({"a": 0.9} | {f"{n}": 0.7 - n / 1000 for n in range(9)}, {"x": 9.0, "1": 2.0})[0] == "a"


@pytest.mark.parametrize(("factor", "offset"), [(10.0, 0.0), (0.1, 0.5), (1.0, -0.5)])
def test_it_is_the_same_for_models_whose_cosines_lie_closer_together_or_further_apart(
    factor: float, offset: float
) -> None:
    words = {"c": 9.0, "x": 4.0, "e": 1.0}
    assert order({one: factor * cosine + offset for one, cosine in COSINES.items()}, words) == order(COSINES, words)
    assert order(COSINES, {one: 7 * score for one, score in words.items()}) == order(COSINES, words)


def test_a_passage_counts_for_more_where_more_was_found_around_it() -> None:
    alike = {"other": 0.8, "book#3": 0.79, "book#4": 0.78, "x": 0.5}
    assert [one.source for one in fused(alike, {})][:2] == ["book#3", "book#4"]
    apart = {"other": 0.8, "book#3": 0.79, "book#6": 0.78, "x": 0.5}
    assert fused(apart, {})[0].source == "other"


def test_a_document_helps_its_chunks_no_more_for_being_long() -> None:
    one_book = fused({f"book#{n}": 0.8 for n in range(30)} | {"x": 0.5}, {})
    many_notes = fused({f"note{n}": 0.8 for n in range(30)} | {"x": 0.5}, {})
    assert one_book[0].score == pytest.approx(1.8 * many_notes[0].score)


def test_equal_ones_come_in_the_order_of_their_ids() -> None:
    assert order({"b": 0.5, "a": 0.5}, {}) == "ab"
    assert order({}, {"b": 2.0, "a": 2.0}) == "ab"
    assert order({}, {}) == ""


def test_one_list_alone_keeps_its_scores() -> None:
    assert [one.score for one in fused(COSINES, {}, mode="dense")] == list(COSINES.values())
    assert [one.score for one in fused({}, {"a": 9.0, "b": 3.0}, mode="keyword")] == [9.0, 3.0]


def test_scores_of_both_are_never_below_zero_and_each_tells_where_it_was_found() -> None:
    found = {one.source: one for one in fused(COSINES, {"x": 1.0})}
    assert all(one.score >= 0 for one in found.values())
    assert (found["x"].similarity, found["x"].has_keyword) == (None, True)
    assert (found["a"].similarity, found["a"].has_keyword) == (0.9, False)
