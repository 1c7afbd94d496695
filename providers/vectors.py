"""What makes vectors of what a provider sent: as many as texts, of one length, of finite numbers."""

from collections.abc import Sequence
from math import isfinite

from processors.ports import Embeddings
from providers.failures import senseless


def embeddings(
    name: str, vectors: Sequence[Sequence[float]], *, texts: int, model: str, prompt_tokens: int | None
) -> Embeddings:
    """Raises PermanentError where they are not."""
    lengths = {len(vector) for vector in vectors}
    fits = len(vectors) == texts and len(lengths) == 1 and 0 not in lengths
    if not fits or not all(isfinite(number) for vector in vectors for number in vector):
        raise senseless(name)
    return Embeddings(tuple(tuple(vector) for vector in vectors), model, prompt_tokens)
