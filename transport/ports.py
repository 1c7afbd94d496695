"""Why a port cannot be listened on, in a sentence for people."""

import errno

import psutil


def why_not(port: int, error: OSError, *, setting: str) -> str:
    """What is in the way and what to do: `error` is what listening there raised, `setting` chooses another port."""
    if error.errno != errno.EADDRINUSE:
        return f"port {port} cannot be listened on ({error.strerror}): choose another with {setting}"
    return f"port {port} is held by {holder(port)}: end that, or choose another with {setting}"


def holder(port: int) -> str:
    """Who listens on a port: `python (pid 4711)`."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return "another process"
