"""A Faust app whose topics have lanes: the composition of our consumer, producer and stages in hand."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import faust
from aiokafka.errors import KafkaError, KafkaTimeoutError
from faust.exceptions import ProducerSendError
from faust.tables import TableManager

from schemas.envelope import Record
from streams.bad_luck import COOL_DOWN_S, BadLuck
from streams.consumer import Consumer, Producer
from streams.credentials import credentials
from streams.lane import Lane
from streams.quarantine import Quarantine
from transport.clients import KafkaAccess
from transport.partitioner import partition_of
from transport.producer_ids import is_out_of_order, is_too_large

logger = logging.getLogger(__name__)

EXIT_CODE = 70  # EX_SOFTWARE: something that was not foreseen; nothing unfinished was acknowledged
MAX_REQUEST_BYTES = 2_097_152  # a dead letter is a record of up to 1 MiB with headers added
SEND_RETRY_S = 0.5


class NoTables(TableManager):
    """We have none. Faust's own waits a second, at every start of every app, for tables to be declared."""

    async def on_start(self) -> None:
        """Called by Faust."""
        await self._update_channels()
        await self.recovery.start()


class StreamApp(faust.App):
    """One role: a consumer group with its agents."""

    def __init__(
        self,
        role: str,
        access: KafkaAccess,
        *,
        group: str,
        session_timeout_s: float = 6.0,
        drain_timeout_s: float = 30.0,
        revoke_drain_s: float = 2.0,
        commit_interval_s: float = 0.25,
        instance_id: str | None = None,
        quarantine: Quarantine | None = None,
        cool_down_s: float = COOL_DOWN_S,
    ) -> None:
        """Join with a group.

        Args:
            role: Whose app it is.
            access: The cluster.
            group: Its name.
            session_timeout_s: Until a silent member's partitions go to others.
            drain_timeout_s: To finish on SIGTERM.
            revoke_drain_s: To finish on a rebalance.
            commit_interval_s: How often offsets are committed.
            instance_id: Static membership.
            quarantine: Shared by all apps of a process.
            cool_down_s: Until a stage that stopped for its dead letters tries one event.
        """
        self.quarantine = quarantine or Quarantine()
        self.lanes: dict[str, Lane] = {}
        self.role, self._cool_down_s = role, cool_down_s
        self.drain_timeout_s, self.revoke_drain_s = drain_timeout_s, revoke_drain_s
        self._exiting: asyncio.Task[None] | None = None
        super().__init__(
            group,
            broker=access.faust_broker(),
            broker_credentials=credentials(access),
            key_serializer="raw",
            value_serializer="raw",
            datadir=Path(tempfile.gettempdir()) / "assistant-stream",  # of tables, which we have none of
            web_enabled=False,  # it would bind a port per app
            topic_disable_leader=True,
            stream_wait_empty=True,  # our wait_empty is the drain
            consumer_auto_offset_reset="earliest",
            consumer_group_instance_id=instance_id,
            broker_commit_interval=commit_interval_s,
            broker_session_timeout=session_timeout_s,
            broker_heartbeat_interval=session_timeout_s / 6,
            broker_rebalance_timeout=60.0,
            broker_request_timeout=20.0,
            broker_max_poll_records=500,
            producer_request_timeout=20.0,
            producer_max_batch_size=512 * 1024,  # 16 KiB wakes hundreds of waiters for every full batch
            producer_max_request_size=MAX_REQUEST_BYTES,
            producer_partitioner=partition_of,
            worker_redirect_stdouts=False,
            TableManager=NoTables,
        )

    def lane(
        self, topic: str, name: str, *, limit: int, at_entry: bool = False, is_sink: bool = False,
        is_apart: bool = False,
    ) -> Any:  # fmt: skip
        """A topic for an agent, with at most `limit` of its records in work.

        `at_entry`: anyone may write to it; `is_sink`, `is_apart`: see `Lane`.
        """
        luck = BadLuck(name, at_entry=at_entry, cool_down_s=self._cool_down_s)
        self.lanes[topic] = Lane(self, name, limit, luck, is_sink=is_sink, is_apart=is_apart)
        return self.topic(topic)

    async def offer(self, record: Record) -> "asyncio.Future[Any]":
        """Hand a record to the producer; the future is the brokers' answer. Raises KafkaError, ProducerSendError."""
        answer: asyncio.Future[Any] = await self.producer.send(
            record.topic, record.key, record.value, record.partition, None, record.headers
        )
        answer.add_done_callback(self.look_at)
        return answer

    async def hand_over(self, record: Record) -> "asyncio.Future[Any]":
        """Hand a record to the producer; the future is the brokers' answer. Outlives a broker that is away."""
        while True:
            try:
                answer = await self.offer(record)
            except (KafkaError, ProducerSendError) as error:
                if _is_too_large(error):  # the same answer, whether the producer gives it or the broker
                    answer = asyncio.get_running_loop().create_future()
                    answer.set_exception(error)
                    return answer
                if not is_passing(error):
                    raise
                await asyncio.sleep(SEND_RETRY_S)
            else:
                return answer

    async def know(self, topic: str) -> None:
        """Return once the producer knows a topic's partitions. Outlives a broker that is away."""
        while True:
            try:
                await self.producer.know(topic)
            except (KafkaError, ProducerSendError) as error:
                if not is_passing(error):
                    raise
                await asyncio.sleep(SEND_RETRY_S)
            else:
                return

    async def publish(self, records: Sequence[Record]) -> None:
        """Return once the brokers have all of them, or what is said instead; waited for together."""
        answers = [await self.hand_over(record) for record in records]
        for record, answer in zip(records, answers, strict=True):
            waiting: Awaitable[Any] = answer
            was_alone = False
            while True:
                try:
                    await waiting
                    break
                except (KafkaError, ProducerSendError) as error:
                    if is_too_large(error) and not was_alone:  # it may have been meant for one beside it
                        waiting, was_alone = self._send_alone(record), True
                        continue
                    if record.instead is not None and _is_too_large(error):
                        logger.error("%s: a record is larger than the brokers take", record.topic)  # noqa: TRY400
                        await self.publish(record.instead())
                        break
                    if not is_passing(error):
                        raise
                    await asyncio.sleep(SEND_RETRY_S)
                    waiting = self._send_alone(record) if was_alone else await self.hand_over(record)

    async def _send_alone(self, record: Record) -> None:
        """Return once the brokers have it: they refuse a whole batch for one record in it."""
        answer = await self.producer.send_alone(record)
        answer.add_done_callback(self.look_at)
        await answer

    def look_at(self, answer: "asyncio.Future[Any]") -> None:
        """Called with each answer before anything more is sent."""
        if answer.cancelled() or (error := answer.exception()) is None:
            return
        if is_too_large(error) or is_out_of_order(error):
            self.producer.renew_id()

    async def tell(self, record: Record) -> None:
        """Publish without waiting for an answer: for facts that nothing depends on."""
        with suppress(KafkaError, ProducerSendError):
            await self.offer(record)

    def fail(self, what: object, error: BaseException) -> None:
        """Something that is nobody's business went wrong: let the rest finish, commit it, end visibly."""
        logger.critical("%s failed at %s; nothing of it is acknowledged, this process ends", self.role, what,
                        exc_info=error)  # fmt: skip
        if self._exiting is None:
            self._exiting = asyncio.create_task(self._exit())

    async def _exit(self) -> None:
        self.consumer.stop_flow()
        try:
            await asyncio.wait_for(self.consumer.wait_empty(), self.revoke_drain_s + 5)
        finally:
            logging.shutdown()
            os._exit(EXIT_CODE)

    def _new_transport(self) -> Any:
        transport = super()._new_transport()
        transport.Consumer, transport.Producer = Consumer, Producer
        return transport


def is_passing(error: BaseException) -> bool:
    """True if the same record may be taken later."""
    cause = error.__cause__ or error
    return isinstance(cause, KafkaTimeoutError) or is_out_of_order(cause) or bool(getattr(cause, "retriable", False))


def _is_too_large(error: BaseException) -> bool:
    """True if no broker will ever take it."""
    return is_too_large(error.__cause__ or error)
