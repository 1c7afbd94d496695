"""A new id for a producer whose batch was refused, as the Java client takes one.

aiokafka 0.14 goes on counting as if the brokers had taken it. They have not, so to them each later batch for that
partition is out of order, for ever.
"""

import asyncio

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, OutOfOrderSequenceNumber, RecordListTooLargeError
from aiokafka.producer.transaction_manager import NO_PRODUCER_EPOCH, NO_PRODUCER_ID, PidAndEpoch


def is_too_large(error: BaseException | None) -> bool:
    """True if the brokers never take it."""
    return isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError)


def is_out_of_order(error: BaseException | None) -> bool:
    """True if the brokers have not taken it, and would take it under a new id."""
    return isinstance(error, OutOfOrderSequenceNumber)


def renew_id(producer: AIOKafkaProducer) -> None:
    """Have it ask for a new id before it sends anything more; what is under way keeps the old one.

    Called at the moment of the refusal, before anything else of its partition is sent.
    """
    manager = producer._txn_manager
    if manager is not None and manager.has_pid():
        manager._pid_and_epoch = PidAndEpoch(NO_PRODUCER_ID, NO_PRODUCER_EPOCH)
        manager._pid_waiter = asyncio.get_running_loop().create_future()
        manager._sequence_numbers.clear()
