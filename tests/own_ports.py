"""Processes that test beside each other choose among ports of their own: some time passes until one is listened on."""

import os

from embedded import ports


def use() -> None:
    """From now on in this process."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = (ports.LAST - ports.FIRST) // processes
    ports.FIRST += number * share
    ports.LAST = ports.FIRST + share
