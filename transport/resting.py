"""Readers that have read what there is, and wait for more: with few requests, and without standing in their own way.

A broker with nothing to give holds a fetch back, and answers as soon as there is something; so the wait costs nobody
time. But it handles what comes over one connection in turn: what else a reader asks would wait behind its fetch.
"""

from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.fetch import FetchRequest

BRISK_MS = 100  # while it has to get somewhere: a fetch from where it was before it was moved is waited for
REST_MS = 500  # as a new leader is found after it


def rest(consumer: AIOKafkaConsumer) -> None:
    """From its next fetch on; for a consumer in no group.

    What it asks beside its fetches goes over a connection of its own from now on, which is opened when it is needed.
    """
    consumer._fetcher._fetch_max_wait_ms = REST_MS
    client, send = consumer._client, consumer._client.send

    async def send_aside(node_id: int, request: Any, **options: Any) -> Any:
        if not isinstance(request, FetchRequest):
            options["group"] = ConnectionGroup.COORDINATION  # which one in no group has no other use for
        return await send(node_id, request, **options)

    client.send = send_aside
