"""Tells everybody of users as they are stored: puts them on `user-updated`, at last also what a crash has cut short."""

import asyncio
import logging

from aiokafka.errors import KafkaError

from ingress.publisher import NotAcceptedError, OutcomeUnknownError, Publisher
from processors.errors import RetryableError
from processors.loops import Loop, end
from schemas.events import UserUpdated
from sinks.users import UserStore
from transport.table import CompactedTable, NotStartedError

logger = logging.getLogger(__name__)

KNOWN_WITHIN_S = 5.0
LOOK_EVERY_S, AT_ONCE = 2.0, 100
MAX_BACKOFF_S = 10.0


class NotKnownError(Exception):
    """It is stored, but not known everywhere yet: it will be once Kafka answers."""


class Announcer:
    """One replica's part in it. What is stored and not announced is looked for every other second, by all of them."""

    def __init__(
        self, users: UserStore, publisher: Publisher, table: CompactedTable[UserUpdated], *, topic: str
    ) -> None:
        """`table`: what this replica knows of users; `topic`: `user-updated`, in full."""
        self._users, self._publisher, self._table, self._topic = users, publisher, table, topic
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for what nobody was told of; returns at once."""
        self._looking = asyncio.create_task(self._look(), name="announcer")

    async def stop(self) -> None:
        """May be called twice."""
        if self._looking is not None:
            await end(self._looking)
            self._looking = None

    async def tell(self, user_id: str) -> None:
        """Return once everybody can know of the user's newest state, and this replica does.

        Raises:
            NotKnownError: Kafka does not answer.
            RetryableError: Postgres does not.
        """
        try:
            await announce(user_id, self._users, self._publisher, self._topic)
            async with asyncio.timeout(KNOWN_WITHIN_S):
                await self._table.reach_end()
        except (NotAcceptedError, OutcomeUnknownError, TimeoutError, KafkaError, NotStartedError) as error:
            raise NotKnownError(str(error)) from error

    async def _look(self) -> None:
        wait, loop = LOOK_EVERY_S, Loop("telling of users", max_wait_s=MAX_BACKOFF_S)
        while True:
            await asyncio.sleep(wait)
            try:
                for user_id in await self._users.unannounced(limit=AT_ONCE):
                    self._publisher.check()
                    await announce(user_id, self._users, self._publisher, self._topic, again=False)
                wait = LOOK_EVERY_S
                loop.went_well()
            except (RetryableError, NotAcceptedError, OutcomeUnknownError) as error:
                wait = min(MAX_BACKOFF_S, wait * 2)
                logger.warning("changes of users wait to be told: %s", type(error).__name__)
            except Exception as bug:
                wait = max(LOOK_EVERY_S, loop.met(bug))


async def announce(user_id: str, users: UserStore, publisher: Publisher, topic: str, *, again: bool = True) -> None:
    """Publish a user as stored on `user-updated`, and write down that it was; `again`: also where it is written down.

    Raises:
        NotAcceptedError, OutcomeUnknownError: Kafka does not answer.
        RetryableError: Postgres does not.
    """
    async with users.announcing(user_id) as row:
        if row is not None and (again or not row.announced):
            await publisher.publish(row.announcement(topic))
