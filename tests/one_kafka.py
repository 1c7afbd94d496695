"""One Kafka for all processes that test beside each other: each test's topics and groups have names of its own.

It belongs to the process that hands out the tests, for one of those that run them may end before the others do.
"""

import asyncio
import os
import shutil
import threading
from collections.abc import Callable

from embedded.kafka import answers
from embedded.ports import HOST, KeptPorts
from embedded.services import start_kafka
from tests import scratch
from tests.waiting import until

WHERE = "TESTS_KAFKA"


def start() -> Callable[[], None]:
    """Begin to start it, while others collect their tests; returns what stops it."""
    home = scratch.folder()
    os.environ[WHERE] = f"{HOST}:{KeptPorts(home / 'ports.json').get('kafka')}"
    over = threading.Event()

    def run() -> None:  # it ends with the thread that has started it
        running = start_kafka(home)
        over.wait()
        running.stop()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def stop() -> None:
        over.set()
        thread.join()
        shutil.rmtree(home, ignore_errors=True)

    return stop


def bootstrap() -> str | None:
    """Where it is, once it answers; None: there is none."""
    if where := os.environ.get(WHERE):
        asyncio.run(until(lambda: answers(where), within_s=180))
    return where
