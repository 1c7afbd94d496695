"""Makes a server's program anew in its own process: who calls meanwhile waits, and is then passed on."""

import contextlib
import ctypes
import json
import os
import socket
import stat
import struct
import sys
import threading
from typing import Any, NoReturn

CHUNK_BYTES, BACKLOG = 65_536, 512
_SO_ATTACH_REUSEPORT_CBPF, _BPF_RET_K = 51, 0x06  # linux/socket.h, linux/bpf_common.h
HANDED_OVER = "ASSISTANT_HANDED_OVER"  # in the environment of the program that follows


def hold(host: str, port: int) -> socket.socket:
    """A socket at which callers wait. Both it and the server listen with SO_REUSEPORT.

    Raises:
        OSError: Another program listens there that does not share its port.
    """
    waiting = socket.socket()
    try:
        waiting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        waiting.bind((host, port))
        waiting.listen(BACKLOG)
    except OSError:
        waiting.close()
        raise
    return waiting


def begin_anew(waiting: socket.socket, told: dict[str, Any]) -> NoReturn:
    """Be this program anew, with the same arguments, process id and parent: every thread ends here, whatever it does.

    Args:
        waiting: From `hold`; the program that follows has it by `taken_over`.
        told: As JSON has it, likewise.
    """
    _stop_listening_beside(waiting)
    waiting.set_inheritable(True)
    os.environ[HANDED_OVER] = json.dumps({"socket": waiting.fileno(), "told": told})
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # itself


def _stop_listening_beside(waiting: socket.socket) -> None:
    """From now on all who call come to `waiting`: at the server's own socket they would be cut off."""
    for descriptor in {*map(int, os.listdir("/dev/fd"))} - {waiting.fileno()}:
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as other:
                if (
                    other.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                    and other.getsockname() == waiting.getsockname()
                ):
                    other.shutdown(socket.SHUT_RDWR)


def taken_over() -> tuple[socket.socket | None, dict[str, Any]]:
    """What the program before has handed over; nothing where there was none. Must be called before a file is opened."""
    if (given := os.environ.pop(HANDED_OVER, None)) is None:
        return None, {}
    handed = json.loads(given)
    at: int = handed["socket"]
    # A connection that it had and left open would be one that nobody answers.
    os.closerange(3, at)
    os.closerange(at + 1, os.sysconf("SC_OPEN_MAX"))
    return socket.socket(fileno=at), handed["told"]


def let_in(waiting: socket.socket, host: str, port: int) -> None:
    """Whoever waits there is answered by the server that listens on the port now; the socket is closed."""
    _lead_to_second(waiting)
    callers: list[socket.socket] = []
    with waiting:
        waiting.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                callers.append(waiting.accept()[0])
    # Only now: before, a connection of ours might have come to the socket that was waiting.
    for caller in callers:
        threading.Thread(target=_pass_on, args=(caller, host, port), daemon=True).start()


def _lead_to_second(waiting: socket.socket) -> None:
    """From now on all who call come to the server: at the socket that is to be closed they would be cut off.

    Which of the sockets of a port a caller comes to is for a program of the kernel's to say, if there is one; this one
    says the second, which is the server's, since the one that waits was there before it. Source: socket(7),
    SO_ATTACH_REUSEPORT_CBPF. Where there is no such thing, callers come to either by lot, and one of them that comes
    between the last that is let in and the close is cut off.
    """
    if sys.platform != "linux":
        return
    second = struct.pack("=HBBI", _BPF_RET_K, 0, 0, 1)
    code = ctypes.create_string_buffer(second, len(second))
    with contextlib.suppress(OSError):
        waiting.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", 1, ctypes.addressof(code)))


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
