"""A worker that can be made to hang. Run as a process by test_watchdog.py: settings as any worker, then its roles.

SIGUSR1 blocks its event loop; after SIGUSR2 its consumers get nothing any more, which nobody is told of. What they had
asked for before that is still delivered: to cancel a poll would lose what it has taken, and with that what waits.
"""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from typing import Any

from settings import Settings
from streams.worker import Worker
from transport import logs


async def main() -> None:
    worker = Worker(Settings(), sys.argv[1].split(","))

    def block() -> None:
        time.sleep(600)

    def fetch_nothing() -> None:
        deaf = set()

        async def nothing(*_: Any, **__: Any) -> dict[Any, Any]:
            deaf.add(asyncio.current_task())
            if len(deaf) == len(worker._apps):  # each has its last poll behind it
                logging.getLogger(__name__).warning("nothing is fetched any more")
                deaf.add(None)
            await asyncio.sleep(0.1)
            return {}

        for app in worker._apps:
            app.consumer._getmany = nothing  # that is the fault

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, block)
    loop.add_signal_handler(signal.SIGUSR2, fetch_nothing)
    with contextlib.suppress(asyncio.CancelledError):
        await worker.run()


settings = Settings()
logs.set_up(debug=settings.debug_mode)
asyncio.run(main())
