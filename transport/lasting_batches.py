"""Batches of an idempotent producer that last for as long as their partition has no leader.

aiokafka 0.14 retries them for ever, as it says, but for one case: where no broker leads the partition, a batch that is
older than `request_timeout_ms` is dropped. Its sequence numbers stay counted, so whatever follows it is out of order to
the brokers; and whoever was told that the record may still arrive waits in vain. A partition whose only replica is away
for 20 s is enough.
"""

import math
from typing import Any

from aiokafka.producer.message_accumulator import MessageAccumulator


def install() -> None:
    """Have the batches of all idempotent producers of this process last. May be called twice."""
    MessageAccumulator.__init__ = _init


_init_once = MessageAccumulator.__init__


def _init(self: MessageAccumulator, *args: Any, txn_manager: Any = None, **options: Any) -> None:
    _init_once(self, *args, txn_manager=txn_manager, **options)
    if txn_manager is not None:
        self._batch_ttl = math.inf
