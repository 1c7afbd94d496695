"""Two lists of one search become one: reciprocal rank fusion. Source: Cormack, Clarke & Büttcher, SIGIR 2009."""

from collections.abc import Sequence
from typing import Any, Protocol

from processors.document_ports import Found
from schemas.requests import SearchMode
from vectors.keywords import query_vector

RANK_CONSTANT = 60  # theirs
DENSE_WEIGHT, KEYWORD_WEIGHT = 1.0, 0.7  # tuned on one half of the questions, see docs/retrieval.md
CANDIDATES = 50  # of each list, at least


class Scored(Protocol):
    """A point as it was found."""

    id: Any
    score: float
    payload: dict[str, Any] | None


class Read(Protocol):
    """Makes a chunk of a payload."""

    def __call__(
        self, payload: dict[str, Any], /, *, score: float, similarity: float | None, has_keyword: bool
    ) -> Found:
        """See `processors.document_ports.Found`."""
        ...


def fuse(
    dense: Sequence[Scored], keyword: Sequence[Scored], *, mode: SearchMode, limit: int, words: frozenset[int],
    read: Read,
) -> list[Found]:  # fmt: skip
    """The best of both, best first; the same for the same lists.

    Args:
        dense: By likeness, with the cosine as score.
        keyword: By words.
        mode: `hybrid`, or the only list that there is.
        limit: At most so many.
        words: Of the query: whether one is in a chunk that was found by its vector is looked up in its text.
        read: See `Read`.
    """
    similarity = {str(point.id): point.score for point in dense}
    by_words = {str(point.id): point.score for point in keyword}
    points = {str(point.id): point for point in (*keyword, *dense)}
    if mode == "hybrid":
        scores = dict.fromkeys(points, 0.0)
        for found, weight in ((similarity, DENSE_WEIGHT), (by_words, KEYWORD_WEIGHT)):
            for rank, point_id in enumerate(_ranked(found), 1):
                scores[point_id] += weight / (RANK_CONSTANT + rank)
    else:
        scores = similarity if mode == "dense" else by_words
    results = []
    for point_id in _ranked(scores)[:limit]:
        payload = points[point_id].payload or {}
        has = point_id in by_words or bool(words & set(query_vector(payload["chunk"]["text"]).indices))
        results.append(
            read(payload, score=scores[point_id], similarity=similarity.get(point_id), has_keyword=has)
        )  # fmt: skip
    return results


def _ranked(scores: dict[str, float]) -> list[str]:
    """Ids, best first; of equal ones the order of ids, so that it is the same each time."""
    return sorted(scores, key=lambda point_id: (-scores[point_id], point_id))
