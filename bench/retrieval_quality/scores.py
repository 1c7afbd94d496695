"""How good a list of documents is: recall@5 and nDCG@10."""

from collections.abc import Collection, Sequence
from math import log2
from uuid import UUID


def recall(ranked: Sequence[UUID], right: Collection[UUID], *, at: int = 5) -> float:
    """The share of the right ones among the first."""
    return sum(one in right for one in ranked[:at]) / len(right)


def ndcg(ranked: Sequence[UUID], right: Collection[UUID], *, at: int = 10) -> float:
    """1 where all right ones stand first; the further down, the less."""
    gained = sum(1 / log2(place + 2) for place, one in enumerate(ranked[:at]) if one in right)
    return gained / sum(1 / log2(place + 2) for place in range(min(at, len(right))))
