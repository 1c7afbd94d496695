"""Whether a process may start at all: who it is to the brokers, what it may, and what production asks for."""

import logging
from collections.abc import Sequence

from schemas.topics import Catalog
from transport.admin import Copies, describe, lacking
from transport.clients import KafkaAccess
from transport.kafka_security import KafkaSecurity, hosts, is_loopback
from transport.permissions import told

logger = logging.getLogger(__name__)

SAFE_REPLICAS, SAFE_MIN_IN_SYNC = 3, 2


async def wrongs(
    access: KafkaAccess, catalog: Catalog, providers: Sequence[str], roles: Sequence[str], *, production: bool
) -> list[str]:
    """Why a process with these roles must not start; nothing where it may.

    Without `production` what production would refuse is logged once, where the brokers are not this machine's own.

    Raises:
        RefusedError: The brokers do not take us.
        TopicsError: They cannot be reached.
    """
    has_acls = access.security.security_protocol != "PLAINTEXT"
    if has_acls and (found := await lacking(access, catalog, providers, roles)):
        return [told(found, access.security.principal)]
    if not production and all(is_loopback(host) for host in hosts(access.bootstrap_servers)):
        return []
    weak = [
        *unencrypted(access.security, access.bootstrap_servers),
        *unsafe((await describe(access, catalog, providers)).copies),
    ]
    if production:
        return [f"PRODUCTION=true refuses this: {sentence}" for sentence in weak]
    if weak:
        logger.warning("not fit for production (PRODUCTION=true would refuse it): %s", "; ".join(weak))
    return []


def unencrypted(security: KafkaSecurity, bootstrap_servers: str) -> list[str]:
    """What may be read on its way: what proves who we are, and all that the topics carry."""
    if security.has_sasl and not security.has_tls:
        return ["KAFKA_SECURITY_PROTOCOL is SASL_PLAINTEXT, without TLS; set it to SASL_SSL"]
    foreign = [host for host in hosts(bootstrap_servers) if not is_loopback(host)]
    if foreign and not security.has_tls:
        return [
            f"KAFKA_SECURITY_PROTOCOL is PLAINTEXT, and {foreign[0]} is another machine: prompts and answers could be "
            "read and changed on the way; set it to SASL_SSL or SSL"
        ]
    return []


def unsafe(copies: Sequence[Copies]) -> list[str]:
    """Topics that lose what was acknowledged when one broker is lost, each with its field."""
    few = [
        f"the topic {topic.topic} has replication factor {topic.replicas}, less than {SAFE_REPLICAS}"
        for topic in copies
        if topic.replicas < SAFE_REPLICAS
    ]
    loose = [
        f"the topic {topic.topic} has min.insync.replicas {topic.min_in_sync}, less than {SAFE_MIN_IN_SYNC}"
        for topic in copies
        if topic.min_in_sync < SAFE_MIN_IN_SYNC
    ]
    return [*_some(few), *_some(loose)]


def _some(sentences: list[str], most: int = 3) -> list[str]:
    left = len(sentences) - most
    return sentences if left <= 0 else [*sentences[:most], f"and so have {left} more topics"]
