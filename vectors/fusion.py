"""Two lists of one search become one, by their scores, each on a scale of its own list.

Source: Bruch, Gai & Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", ACM TOIS 2023: a sum of scores that
were made comparable keeps how far apart they are, which ranks do not; measured in docs/retrieval.md.
"""

from collections.abc import Mapping, Sequence
from statistics import pstdev
from typing import Any, Protocol

from processors.documents.document_ports import Found
from schemas.requests import SearchMode
from vectors.keywords import query_vector

# All tuned on one half of the questions, see docs/retrieval.md.
KEYWORD_WEIGHT = 3.0  # standard deviations of the cosines
NEIGHBOUR_WEIGHT = 0.4  # of the scores of its neighbours that a chunk has beside its own
NEIGHBOURS, NEAR = 2, 2  # at most so many, at most so many chunks away: a long document helps its chunks no more
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
        """See `processors.documents.document_ports.Found`."""
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
        likeness, words_said = _above_the_weakest(similarity), _of_the_best(by_words)
        alone = {one: likeness.get(one, 0.0) + KEYWORD_WEIGHT * words_said.get(one, 0.0) for one in points}
        scores = _with_neighbours(alone, points)
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


def _above_the_weakest(cosines: Mapping[str, float]) -> dict[str, float]:
    """In standard deviations: models differ in how close together their cosines lie. What was not found has 0."""
    if not cosines:
        return {}
    least, spread = min(cosines.values()), pstdev(cosines.values())
    return {one: (cosine - least) / spread if spread else 0.0 for one, cosine in cosines.items()}


def _of_the_best(scores: Mapping[str, float]) -> dict[str, float]:
    """From 0 to 1: how high BM25 goes depends on the query. Squared: half of the words tell less than half."""
    most = max(scores.values(), default=0.0)
    return {one: (score / most) ** 2 if most > 0 else 0.0 for one, score in scores.items()}


def _with_neighbours(scores: Mapping[str, float], points: Mapping[str, Scored]) -> dict[str, float]:
    """A passage in whose surroundings more was found is more likely to be what is looked for."""
    places = {one: _place(point) for one, point in points.items()}
    by_place = {place: scores[one] for one, place in places.items()}
    found: dict[str, float] = {}
    for one, (version, index) in places.items():
        around = (by_place.get((version, index + step), 0.0) for step in range(-NEAR, NEAR + 1) if step)
        found[one] = scores[one] + NEIGHBOUR_WEIGHT * sum(sorted(around, reverse=True)[:NEIGHBOURS])
    return found


def _place(point: Scored) -> tuple[str, int]:
    payload = point.payload or {}
    return str(payload["version_id"]), int(payload["chunk"]["index"])


def _ranked(scores: dict[str, float]) -> list[str]:
    """Ids, best first; of equal ones the order of ids, so that it is the same each time."""
    return sorted(scores, key=lambda point_id: (-scores[point_id], point_id))
