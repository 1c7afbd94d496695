"""What the ingress asks of Kafka before it listens: an outage is waited out, a refusal is not."""

import asyncio

from schemas.topics import Catalog
from settings import Settings
from transport.admin import RefusedError, TopicsError
from transport.clients import KafkaAccess
from transport.start_check import wrongs

WITHIN_S = 5.0


class ClusterRefusesError(Exception):
    """The ingress cannot start; the message says what to do."""


def check_cluster(settings: Settings) -> None:
    """Return where the cluster takes this ingress, or does not answer yet.

    Raises:
        ClusterRefusesError: It refuses, or PRODUCTION is set and it is not fit for that.
    """
    access = KafkaAccess(settings.kafka_bootstrap_servers or "", settings.kafka_security)
    catalog = Catalog.load(prefix=settings.kafka_topic_prefix)

    async def ask() -> list[str]:
        async with asyncio.timeout(WITHIN_S):
            return await wrongs(
                access, catalog, settings.allowed_providers, ("ingress",), production=settings.production
            )

    try:
        found = asyncio.run(ask())
    except RefusedError as error:
        raise ClusterRefusesError(str(error)) from None
    except (TopicsError, TimeoutError):
        return  # it comes up all the same, and is ready when Kafka is
    if found:
        raise ClusterRefusesError("; ".join(found))
