"""The compacted topics that a worker keeps in memory, each of them read once."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, TypeVar

from aiokafka.errors import KafkaError

from schemas.events import Event, WorkerHeartbeat
from schemas.topics import Catalog
from transport.clients import KafkaAccess
from transport.table import CompactedTable

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)
RETRY_S = 1.0


class Tables:
    """Of one worker. `opened`: those that there are, by topic."""

    def __init__(
        self, access: KafkaAccess, catalog: Catalog, *, on_beat: Callable[[str, WorkerHeartbeat | None], None]
    ) -> None:
        """`on_beat`: told of each worker's heartbeat where they are followed."""
        self._access, self._catalog, self._on_beat = access, catalog, on_beat
        self.opened: dict[str, CompactedTable[Any]] = {}

    async def workers(self, stack: AsyncExitStack) -> CompactedTable[WorkerHeartbeat]:
        """Those that live, and those that have not been forgotten."""
        known = self.opened.get("worker-heartbeat")
        return known or await self.open(
            stack, "worker-heartbeat", WorkerHeartbeat, forget=lambda beat: beat.is_forgotten(datetime.now(UTC)),
            on_change=self._on_beat,
        )  # fmt: skip

    async def open(
        self, stack: AsyncExitStack, topic: str, event: type[E], *, forget: Callable[[E], bool] | None = None,
        on_change: Callable[[str, E | None], None] | None = None,
    ) -> CompactedTable[E]:  # fmt: skip
        """One more, once it is complete, however long its topic cannot be read; it is closed with the stack."""
        table = CompactedTable(
            self._access, self._catalog.full_name(topic), event, forget=forget, on_change=on_change
        )  # fmt: skip
        while True:
            try:
                await table.start()
                break
            except (KafkaError, OSError) as error:
                logger.warning("%s cannot be read yet: %s", topic, error)
                await asyncio.sleep(RETRY_S)
        stack.push_async_callback(table.stop)
        self.opened[topic] = table
        return table
