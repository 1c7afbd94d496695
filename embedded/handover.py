"""Keeps a port while its server is made anew: who calls meanwhile waits, and is then passed on."""

import contextlib
import socket
import threading
from collections.abc import Iterator

CHUNK_BYTES, BACKLOG = 65_536, 512


@contextlib.contextmanager
def held(host: str, port: int) -> Iterator[None]:
    """Callers within the block are answered by the server that listens on the port at its end.

    Both listen with SO_REUSEPORT; so must the server. One that listens before it can answer says so to its callers.

    Raises:
        OSError: Another program listens there that does not share its port.
    """
    callers: list[socket.socket] = []
    with socket.socket() as waiting:
        waiting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        waiting.bind((host, port))
        waiting.listen(BACKLOG)
        yield
        waiting.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                callers.append(waiting.accept()[0])
    # Only now: before, a connection of ours might have come to the socket that was waiting.
    for caller in callers:
        threading.Thread(target=_pass_on, args=(caller, host, port), daemon=True).start()


def _pass_on(caller: socket.socket, host: str, port: int) -> None:
    """Be the caller's wire to the server, until either hangs up."""
    caller.setblocking(True)
    with caller, contextlib.suppress(OSError), socket.create_connection((host, port)) as server:
        threading.Thread(target=_pour, args=(caller, server), daemon=True).start()
        _pour(server, caller)


def _pour(source: socket.socket, target: socket.socket) -> None:
    """Until one end is shut; then the other end is, too, so that a caller who leaves is noticed."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            target.sendall(chunk)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
