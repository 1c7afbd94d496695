"""Waiting for conditions, with a deadline; never for time."""

import asyncio
import inspect
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def until(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]], *, within_s: float = 30.0,
    telling: Callable[[], object] = lambda: "",
) -> Any:  # fmt: skip
    """Ask again and again; returns what the condition found. `telling`: what was seen, for the message if it failed.

    Raises:
        AssertionError: It did not hold in time.
    """
    deadline = time.monotonic() + within_s
    while True:
        asked_at = time.monotonic()
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        is_time = time.monotonic() < deadline
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
