"""A program that begins anew in its own process, and what happens to callers meanwhile."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from embedded.handover import _lead_to_second, _stop_listening_beside, hold, let_in
from tests.waiting import until


def shared(port: int = 0) -> socket.socket:
    """A server as llama.cpp's is one with `reuse_port`."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind(("127.0.0.1", port))
    server.listen()
    return server


def test_who_calls_while_the_server_is_away_is_answered_by_the_next() -> None:
    first = shared()
    port = first.getsockname()[1]
    waiting = hold("127.0.0.1", port)
    first.close()
    callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
    for at, caller in enumerate(callers):
        caller.sendall(b"%d" % at)
    server = shared(port)

    def serve() -> None:
        for _ in callers:
            connection, _ = server.accept()
            connection.sendall(b"to " + connection.recv(10))
            connection.close()

    # None of the calls came to the new one: they were all there before it.
    let_in(waiting, "127.0.0.1", port)
    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    for at, caller in enumerate(callers):
        caller.settimeout(5)
        with caller, caller.makefile("rb") as said:
            assert said.read() == b"to %d" % at
    serving.join(5)
    server.close()


def test_from_then_on_all_callers_come_to_the_socket_that_waits() -> None:
    with shared() as server:
        port = server.getsockname()[1]
        with hold("127.0.0.1", port) as waiting:
            before = {*os.listdir("/dev/fd")}
            _stop_listening_beside(waiting)
            assert {*os.listdir("/dev/fd")} == before  # a pipe of ours that stayed open twice would never end
            callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
            waiting.settimeout(5)
            for caller in callers:  # by lot, half of them would be the server's
                waiting.accept()[0].close()
                caller.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere callers come to either by lot")
def test_before_the_socket_that_waits_is_closed_all_callers_come_to_the_server() -> None:
    with shared() as first:
        port = first.getsockname()[1]
        waiting = hold("127.0.0.1", port)
    with waiting, shared(port) as server:
        _lead_to_second(waiting)
        callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        server.settimeout(5)
        for caller in callers:
            server.accept()[0].close()
            caller.close()


def test_a_port_of_somebody_else_is_not_shared() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(OSError, match="in use"),
    ):
        hold("127.0.0.1", server.getsockname()[1])


# Says who it is to two callers, and then begins anew; a thread of it never ends, its server and a connection stay open.
PROGRAM = """
import os, socket, sys, threading
from embedded.handover import begin_anew, hold, let_in, taken_over
waiting, told = taken_over()
port, life = int(sys.argv[1]), told.get("life", 0) + 1
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.bind(("127.0.0.1", port))
server.listen()
threading.Thread(target=threading.Event().wait).start()
if waiting is not None:
    let_in(waiting, "127.0.0.1", port)
kept = []
for call in range(2):
    kept.append(server.accept()[0])
    os.set_inheritable(kept[-1].fileno(), True)
    kept[-1].sendall(b"%d %d %d" % (os.getpid(), life, call))
    if call == 0:
        kept.pop().close()
os.set_inheritable(server.fileno(), True)
begin_anew(hold("127.0.0.1", port), {"life": life})
"""


async def test_a_program_begins_anew_in_its_process_and_leaves_no_thread_and_no_connection() -> None:
    with shared() as found:
        port: int = found.getsockname()[1]
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(port)])  # noqa: ASYNC220  # it only begins here

    def said() -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
                return b"".join(iter(lambda: caller.recv(100), b""))  # to its end, which comes with the next program
        except ConnectionRefusedError:
            return b""  # it has not begun yet

    try:
        first = await until(said)
        assert [first, *(said() for _ in range(5))] == [
            b"%d %d %d" % (program.pid, life, call) for life in (1, 2, 3) for call in (0, 1)
        ]
        assert program.poll() is None
        assert len(os.listdir(f"/proc/{program.pid}/task")) <= 3  # its own, the one that waits, one that passes on
    finally:
        program.kill()
        program.wait()
