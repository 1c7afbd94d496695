"""Puts events on their topics, and says honestly whether they were accepted.

503 only before a record is handed to the producer. After that an idempotent producer never gives up on it, so all
that can be said is "not known yet": 504 with the job's id, because the record may still arrive.
"""

import asyncio
import logging
from time import monotonic

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ClusterAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError

from processors.loops import Loop, end
from schemas.envelope import Record
from transport.clients import KafkaAccess
from transport.closing import close
from transport.partitioner import partition_of
from transport.producer_ids import is_out_of_order, is_too_large, renew_id

logger = logging.getLogger(__name__)

CONNECT_RETRY_S, MAX_WAIT_S = 1.0, 10.0
FLUSH_WITHIN_S = 10.0
SILENCE_S = 2.0  # sends wait and no broker has answered for so long: nothing more is taken
MAX_UNANSWERED = 20_000
MAX_BATCH_BYTES = 512 * 1024
DENIED = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)


class NotAcceptedError(Exception):
    """It was not handed over, or the brokers do not let us; nothing will come of it."""


class OutcomeUnknownError(Exception):
    """It was handed over, and the brokers have not answered in time: it may still arrive."""


class Publisher:
    """One idempotent producer, which connects in the background for as long as it takes."""

    def __init__(self, access: KafkaAccess, *, timeout_s: float) -> None:
        """`timeout_s`: how long a caller waits for the brokers' answer."""
        self._access, self._timeout_s = access, timeout_s
        self._producer: AIOKafkaProducer | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._unanswered = 0
        self._answered_at = monotonic()
        self.problem: str | None = "Kafka is not connected yet"

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._connecting = asyncio.create_task(self._connect(), name="publisher")

    async def stop(self) -> None:
        """Flush what was handed over, bounded."""
        if self._connecting is not None:
            await end(self._connecting)
        if self._producer is not None:
            await close(self._producer.stop, within_s=FLUSH_WITHIN_S)

    async def _connect(self) -> None:
        loop = Loop("connecting the ingress's producer", max_wait_s=MAX_WAIT_S)
        while True:
            producer = AIOKafkaProducer(
                **self._access.options(), acks="all", enable_idempotence=True, max_batch_size=MAX_BATCH_BYTES,
                partitioner=partition_of,
            )  # fmt: skip
            try:
                await producer.start()
            except (KafkaError, OSError) as error:
                await close(producer.stop)
                self.problem = self._access.refusal or (
                    f"Kafka at {self._access.bootstrap_servers} cannot be reached; the ingress keeps trying"
                )
                logger.warning("%s (%s)", self.problem, type(error).__name__)
                await asyncio.sleep(CONNECT_RETRY_S)
            except Exception as bug:
                await close(producer.stop)
                self.problem = "Kafka is not connected: a bug, which the log has; the ingress keeps trying"
                await asyncio.sleep(loop.met(bug))
            else:
                self._producer, self.problem = producer, None
                return

    def check(self) -> None:
        """Raise NotAcceptedError where nothing can be taken now."""
        if self._producer is None:
            raise NotAcceptedError(self.problem)
        if self._unanswered >= MAX_UNANSWERED:
            raise NotAcceptedError("too many requests wait for Kafka")
        if self._unanswered and monotonic() - self._answered_at > SILENCE_S:
            raise NotAcceptedError("Kafka does not answer")

    async def publish(self, record: Record) -> None:
        """Return once the brokers have it.

        Raises:
            NotAcceptedError: It was not handed over.
            OutcomeUnknownError: It was, and there is no answer yet.
        """
        self.check()
        producer = self._producer
        if producer is None:
            raise NotAcceptedError(self.problem)
        if not self._unanswered:
            self._answered_at = monotonic()
        self._unanswered += 1
        sending = asyncio.ensure_future(self._send(producer, record))
        sending.add_done_callback(_look_at)
        # To wait is not to await: a caller who leaves must not take the record back half way.
        await asyncio.wait({sending}, timeout=self._timeout_s)
        if not sending.done():
            raise OutcomeUnknownError
        try:
            sending.result()
        except DENIED as error:  # the brokers have answered: nothing was written
            raise NotAcceptedError(
                f"Kafka's user of this ingress may not write {record.topic}: its operator gives it that with what "
                "`assistant topics acls` prints"
            ) from error
        except KafkaError as error:
            raise OutcomeUnknownError from error

    async def _send(self, producer: AIOKafkaProducer, record: Record) -> None:
        try:
            await producer.send_and_wait(record.topic, record.value, key=record.key, headers=record.headers)
            self._answered_at = monotonic()
        except KafkaError as error:
            if is_too_large(error) or is_out_of_order(error) or isinstance(error, DENIED):
                renew_id(producer)
            raise
        finally:
            self._unanswered -= 1


def _look_at(sending: "asyncio.Task[None]") -> None:
    """Nobody may wait for its end any more, who would have taken the error."""
    if not sending.cancelled():
        sending.exception()
