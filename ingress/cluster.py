"""What the ingress asks of Kafka before it listens: an outage is waited out, a refusal is not."""

import asyncio
import logging

from processors.loops import repeat
from schemas.topics import Catalog
from settings import Settings
from transport.admin import RefusedError, TopicsError, lacking
from transport.clients import KafkaAccess
from transport.permissions import told
from transport.start_check import wrongs

logger = logging.getLogger(__name__)
WITHIN_S, EVERY_S = 5.0, 10.0


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


class ClusterWatch:
    """Whether Kafka still takes this ingress, and lets it do what it needs; looks only where it must log in."""

    def __init__(self, settings: Settings) -> None:
        self._access = KafkaAccess(settings.kafka_bootstrap_servers or "", settings.kafka_security)
        self._catalog = Catalog.load(prefix=settings.kafka_topic_prefix)
        self._providers = settings.allowed_providers
        self.problem: str | None = None

    async def run(self) -> None:
        """Until cancelled; returns at once where nobody is refused."""
        if self._access.security.security_protocol != "PLAINTEXT":
            await repeat(self.look, "watching what Kafka lets the ingress do", every_s=EVERY_S, begins_at_once=False)

    async def look(self) -> None:
        """Once. What was found stands while the cluster is away, which others tell."""
        before = self.problem
        try:
            found = await lacking(self._access, self._catalog, self._providers, ("ingress",))
            self.problem = told(found, self._access.security.principal) if found else None
        except RefusedError as error:
            self.problem = str(error)
        except TopicsError:
            return
        if self.problem != before:
            logger.critical("%s", self.problem or "Kafka takes this ingress again")
