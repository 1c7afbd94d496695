"""Waiting for conditions, with a deadline; never for time."""

import asyncio
import inspect
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

PRESSURE = Path("/proc/pressure/cpu")  # on Linux
MOST_STARVED = 2.0  # of a bound: what hangs is told, however busy the machine is


def starved_s() -> float:
    """How long somebody here has waited for a processor since the start; 0 where the kernel does not tell."""
    try:
        total = PRESSURE.read_text().partition("total=")[2].split()[0]
    except (OSError, IndexError):
        return 0.0
    return int(total) / 1e6


async def until(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]], *, within_s: float = 30.0,
    telling: Callable[[], object] = lambda: "",
) -> Any:  # fmt: skip
    """Ask again and again; returns what the condition found.

    Args:
        condition: What to wait for.
        within_s: On a machine with processors to spare. What somebody here waits for one is added, up to twice the
            bound: other tests, and other machines on the same hardware, are nothing that the product could better.
        telling: What was seen, for the message if it failed.

    Raises:
        AssertionError: It did not hold in time.
    """
    began, starved = time.monotonic(), starved_s()
    while True:
        asked_at = time.monotonic()
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        allowed_s = within_s + min(starved_s() - starved, MOST_STARVED * max(0.0, within_s))
        is_time = time.monotonic() < began + allowed_s
        assert is_time, f"not within {within_s} s: {_told(condition)} {telling()}"
        # What takes long to ask leaves as much to those whom it waits for; up to a point.
        await asyncio.sleep(min(0.2, max(0.03, time.monotonic() - asked_at)))


def _told(condition: Callable[[], Any]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):  # it is not written in Python
        return repr(condition)


def listener(port: int) -> "subprocess.Popen[bytes]":
    """Another process that has a port; returns once it listens. To be killed by the caller."""
    script = (
        f"import socket, time; s = socket.socket(); s.bind(('127.0.0.1', {port})); s.listen(); print(1, flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", f"{script}; time.sleep(600)"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process
