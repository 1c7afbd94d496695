"""Embeddings no faster than a provider takes them: by `PROVIDER_REQUESTS_PER_MINUTE`, and by what its own 429 say."""

from collections.abc import Callable, Sequence
from typing import Any

from processors.errors import RetryableError
from processors.ports import EmbeddingProvider, EmbeddingPurpose, Embeddings
from settings import Settings
from streams.pace import Pace
from streams.providers import requests_per_minute

TOO_MANY = "provider-http-429"


class PacedEmbedding:
    """Looks like the provider in it."""

    def __init__(self, provider: EmbeddingProvider, pace: Pace) -> None:
        self._provider, self._pace = provider, pace

    def __getattr__(self, name: str) -> Any:
        """All that it has beside."""
        return getattr(self._provider, name)

    @property
    def name(self) -> str:
        """As the provider's."""
        return self._provider.name

    @property
    def embedding_model(self) -> str:
        """As the provider's."""
        return self._provider.embedding_model

    async def embed(self, texts: Sequence[str], *, purpose: EmbeddingPurpose, timeout_s: float) -> Embeddings:
        """As the provider's, once it is its turn: which counts in `timeout_s`.

        Raises:
            RetryableError: Its turn does not come in that time.
        """
        if not await self._pace.turn(timeout_s):
            raise RetryableError(
                TOO_MANY, f"{self.name} is asked for embeddings as often as it may be: try again later"
            )
        try:
            return await self._provider.embed(texts, purpose=purpose, timeout_s=timeout_s)
        except RetryableError as error:
            if error.code == TOO_MANY:
                self._pace.set_back(error.retry_after_s)
            raise


def paced(
    provider: EmbeddingProvider, settings: Settings, *, share: Callable[[], float] = lambda: 1.0
) -> PacedEmbedding:
    """`share`: the part of all workers' calls that this process makes (`streams.guards.partitions_share`)."""
    per_minute = requests_per_minute(settings, provider.name, provider.embedding_model)
    return PacedEmbedding(provider, Pace(per_minute, share=share))
