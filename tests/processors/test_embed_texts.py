import struct
from base64 import b64decode
from collections.abc import Sequence

import pytest

from processors.embed_texts import embed_texts
from processors.errors import PermanentError
from processors.ports import EmbeddingPurpose, Embeddings
from processors.stage import Emit
from schemas.events import EmbeddingRequested, JobFinished
from schemas.requests import EmbeddingRequest
from tests.factories import NOW, job, rate_limit


class FakeEmbedder:
    """Answers with `reply`, an error where it is one. `asked`: texts, purpose and time of each call."""

    name, embedding_model = "openai", "e-1"

    def __init__(self, reply: Embeddings | Exception) -> None:
        self._reply = reply
        self.asked: list[tuple[tuple[str, ...], str, float]] = []

    async def embed(self, texts: Sequence[str], *, purpose: EmbeddingPurpose, timeout_s: float) -> Embeddings:
        self.asked.append((tuple(texts), purpose, timeout_s))
        if isinstance(self._reply, Exception):
            raise self._reply
        return self._reply


def requested() -> EmbeddingRequested:
    request = EmbeddingRequest(texts=("a", "b"), provider="openai")
    return EmbeddingRequested(
        job=job(kind="embedding"), provider="openai", request=request, timeout_s=7, rate_limit=rate_limit()
    )


@pytest.mark.parametrize("tokens", [7, None])
async def test_the_vectors_come_in_the_order_of_the_texts(tokens: int | None) -> None:
    provider, event = FakeEmbedder(Embeddings(((0.25, -0.5), (1e-7, 3.0)), "e-1", tokens)), requested()
    result = await embed_texts(event, provider=provider, now=NOW)
    assert provider.asked == [(("a", "b"), "passage", 7)]
    assert isinstance(result, Emit)
    (finished,) = result.events
    assert isinstance(finished, JobFinished)
    assert finished.result is not None
    vectors = [struct.unpack("<2f", b64decode(packed)) for packed in finished.result.pop("embeddings")]
    assert vectors == [(0.25, -0.5), (pytest.approx(1e-7), 3.0)]
    assert finished.result == {
        "model": "e-1", "dimensions": 2, "usage": tokens and {"prompt_tokens": 7, "total_tokens": 7},
        "meta": {"provider": "openai", "job_id": str(event.job.job_id)},
    }  # fmt: skip
    assert (finished.status, finished.rate_limit) == ("completed", event.rate_limit)


async def test_a_provider_that_refuses_is_not_hidden() -> None:
    with pytest.raises(PermanentError):
        await embed_texts(requested(), provider=FakeEmbedder(PermanentError("provider-http-400", "no")), now=NOW)
