"""A connection that the broker resets, written to before its reader hears of it; on the loop that processes run on."""

import asyncio
import socket
import struct

import pytest
import uvloop
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest

import transport.clients  # noqa: F401 whoever opens a client has this

NOW = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset


async def _reset_connection() -> AIOKafkaConnection:
    """Connected, then reset by the other side; its reader has not heard of it yet."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        host, port = listener.getsockname()
        connection = AIOKafkaConnection(host, port, request_timeout_ms=5_000)
        connection._reader, connection._writer = await asyncio.open_connection(host, port)
        connection._read_task = asyncio.create_task(asyncio.sleep(60))
        connection._closed_fut = asyncio.get_running_loop().create_future()
        connection._closed_fut.set_result(None)
        other, _ = listener.accept()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NOW)
        other.close()
    connection._writer.write(b"the first is taken")
    await asyncio.sleep(0)
    return connection


def test_what_is_written_to_a_reset_connection_says_that_it_is_closed() -> None:
    async def scene() -> None:
        connection = await _reset_connection()
        assert connection.connected()  # which is the trap
        with pytest.raises(KafkaConnectionError):
            await connection.send(ApiVersionRequest())
        assert not connection.connected()
        with pytest.raises(KafkaConnectionError):
            connection._send_sasl_token(b"token")

    uvloop.run(scene())


def test_sasl_hears_of_it_too() -> None:
    async def scene() -> None:
        connection = await _reset_connection()
        with pytest.raises(KafkaConnectionError):
            await connection._send_sasl_token(b"token")
        assert not connection.connected()

    uvloop.run(scene())


def test_the_task_that_keeps_the_metadata_lives_on() -> None:
    async def scene() -> None:
        client = AIOKafkaClient(bootstrap_servers="127.0.0.1:1")
        client._conns[("bootstrap", 0)] = connection = await _reset_connection()
        assert connection.connected()
        client._sync_task = asyncio.create_task(client._md_synchronizer())
        assert await asyncio.wait_for(client.force_metadata_update(), 5) is False
        assert not client._sync_task.done()
        await client.close()

    uvloop.run(scene())
