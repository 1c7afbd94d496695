"""Makes the guard of each provider that a worker has, from settings."""

from collections.abc import Callable
from time import monotonic

from faust.exceptions import ConsumerNotStarted

from processors.ports import CompletionProvider, EmbeddingProvider
from schemas.topics import Catalog
from settings import Settings
from streams.app import StreamApp
from streams.breaker import Breaker
from streams.guard import ProviderGuard
from streams.pace import Pace
from streams.paced_embedding import PacedEmbedding, paced
from streams.providers import requests_per_minute

LOOK_EVERY_S = 1.0


def make_guard(
    settings: Settings, app: StreamApp, catalog: Catalog, provider: CompletionProvider, *, topic: str | None = None
) -> ProviderGuard:
    """Of one provider; `app` reads its topic, or the one that is named."""
    breaker = Breaker(
        provider.name, failures=settings.breaker_failures, after_s=settings.breaker_after_s,
        cool_down_s=settings.breaker_cool_down_s,
    )  # fmt: skip
    topic = topic or catalog.full_name("completion-requested-{provider}", provider=provider.name)
    pace = Pace(requests_per_minute(settings, provider.name, provider.model), share=partitions_share(app, topic))
    return ProviderGuard(provider.name, breaker, pace)


def make_paced(settings: Settings, app: StreamApp, catalog: Catalog, provider: EmbeddingProvider) -> PacedEmbedding:
    """Of one provider that embeds what comes on its topic, which `app` reads."""
    topic = catalog.full_name("embedding-requested-{provider}", provider=provider.name)
    return paced(provider, settings, share=partitions_share(app, topic))


def partitions_share(app: StreamApp, topic: str, *, clock: Callable[[], float] = monotonic) -> Callable[[], float]:
    """Which part of a topic's partitions is ours, from 1 of all to all of them; looked at once a second."""
    share, looked_at = 1.0, float("-inf")

    def told() -> float:
        nonlocal share, looked_at
        if (now := clock()) - looked_at >= LOOK_EVERY_S:
            looked_at = now
            try:
                total = app.consumer.topic_partitions(topic) or 1
                ours = sum(tp.topic == topic for tp in app.consumer.assignment())
            except ConsumerNotStarted:
                return share
            share = max(ours, 1) / max(total, ours, 1)
        return share

    return told
