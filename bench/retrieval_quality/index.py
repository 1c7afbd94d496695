"""What Qdrant finds, computed here: exact cosines, and BM25 by the product's own word vectors and Qdrant's idf.

With the product's repository in qdrant-client's local mode the same questions take an hour.
"""

from collections import Counter
from dataclasses import dataclass
from math import log
from typing import Any
from uuid import UUID

import numpy as np

from processors.documents.document_ports import Found
from schemas.events import Chunk
from schemas.requests import SearchMode
from vectors import fusion
from vectors.keywords import document_vector, query_vector


@dataclass(slots=True)
class Point:
    """As `vectors.fusion.Scored`."""

    id: int
    score: float
    payload: dict[str, Any] | None


class Index:
    """Chunks with their vectors, all of one user's."""

    def __init__(self) -> None:
        self._chunks: list[tuple[UUID, Chunk]] = []
        self._vectors: list[tuple[float, ...]] = []
        self._words: list[dict[int, float]] = []
        self._with_word: Counter[int] = Counter()
        self._matrix: Any = None

    def add(self, document_id: UUID, chunk: Chunk, vector: tuple[float, ...]) -> None:
        """One more."""
        words = document_vector(chunk.text)
        self._chunks.append((document_id, chunk))
        self._vectors.append(vector)
        self._words.append(dict(zip(words.indices, words.values, strict=True)))
        self._with_word.update(words.indices)
        self._matrix = None

    def search(
        self, query: str, vector: tuple[float, ...], *, mode: SearchMode, limit: int, among: frozenset[UUID]
    ) -> list[Found]:
        """As `VectorRepository.search`, by the product's fusion with its weights of this moment."""
        if self._matrix is None:
            self._matrix = np.array(self._vectors, dtype="float32")
        seen = [place for place, (document_id, _) in enumerate(self._chunks) if document_id in among]
        words = query_vector(query).indices
        depth = max(limit * 3, fusion.CANDIDATES) if mode == "hybrid" else limit
        dense: list[Point] = []
        keyword: list[Point] = []
        if mode != "keyword":
            cosines = self._matrix[seen] @ np.array(vector, dtype="float32")
            dense = self._best(dict(zip(seen, map(float, cosines), strict=True)), depth)
        if mode != "dense":
            idf = {word: self._idf(word) for word in words}
            scores = {place: sum(idf[word] * self._words[place].get(word, 0.0) for word in words) for place in seen}
            keyword = self._best({place: score for place, score in scores.items() if score > 0}, depth)
        return fusion.fuse(
            dense, keyword, mode=mode, limit=limit, words=frozenset(words), read=self._found
        )  # fmt: skip

    def _idf(self, word: int) -> float:
        count = self._with_word[word]
        return log(1 + (len(self._chunks) - count + 0.5) / (count + 0.5))

    def _best(self, scores: dict[int, float], most: int) -> list[Point]:
        best = sorted(scores, key=lambda place: -scores[place])[:most]
        return [Point(place, scores[place], self._payload(place)) for place in best]

    def _payload(self, place: int) -> dict[str, Any]:
        document_id, chunk = self._chunks[place]
        return {"place": place, "version_id": document_id, "chunk": {"text": chunk.text, "index": chunk.index}}

    def _found(
        self, payload: dict[str, Any], /, *, score: float, similarity: float | None, has_keyword: bool
    ) -> Found:  # fmt: skip
        document_id, chunk = self._chunks[payload["place"]]
        return Found(document_id, document_id, str(document_id), chunk, score, similarity, has_keyword)
