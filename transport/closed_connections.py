"""Connections that say of themselves that they are closed.

uvloop raises RuntimeError where something is written to a connection that the other side has reset, up to the moment at
which its reader hears of it; asyncio's own loop drops what is written. aiokafka 0.14 expects neither, only OSError.
What ends then is whoever wrote: the sender of a producer, or the task that keeps the cluster's metadata, and with that,
silently, all that wait for metadata for ever (heartbeats, commits and, by them, a consumer's deliveries). It fits what
was seen once in some sixty times that a broker was killed: a worker stood still until its watchdog ended it.
"""

from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError


def install() -> None:
    """Have all connections of this process do so. May be called twice."""
    AIOKafkaConnection.send = _send
    AIOKafkaConnection._send_sasl_token = _send_sasl_token


_send_once, _send_sasl_token_once = AIOKafkaConnection.send, AIOKafkaConnection._send_sasl_token


def _send(self: AIOKafkaConnection, *args: Any, **options: Any) -> Any:
    try:
        return _send_once(self, *args, **options)
    except RuntimeError as error:
        raise _closed(self) from error


def _send_sasl_token(self: AIOKafkaConnection, *args: Any, **options: Any) -> Any:
    try:
        return _send_sasl_token_once(self, *args, **options)
    except RuntimeError as error:
        raise _closed(self) from error


def _closed(connection: AIOKafkaConnection) -> KafkaConnectionError:
    connection.close(reason=CloseReason.CONNECTION_BROKEN)
    return KafkaConnectionError(f"Connection at {connection.host}:{connection.port} was reset")
