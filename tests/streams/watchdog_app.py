"""A worker that can be made to hang. Run as a process by test_watchdog.py: settings as any worker, then its roles.

SIGUSR1 blocks its event loop; SIGUSR2 stops the fetching of all its consumers, which nobody is told of.
"""

import asyncio
import contextlib
import logging
import signal
import sys
import time

from settings import Settings
from streams.worker import Worker
from transport import logs


async def main() -> None:
    worker = Worker(Settings(), sys.argv[1].split(","))

    def block() -> None:
        time.sleep(600)

    async def stop_fetching() -> None:
        for app in worker._apps:
            await app._fetcher.stop()
        logging.getLogger(__name__).warning("nothing is fetched any more")

    loop, stopping = asyncio.get_running_loop(), set()
    loop.add_signal_handler(signal.SIGUSR1, block)
    loop.add_signal_handler(signal.SIGUSR2, lambda: stopping.add(loop.create_task(stop_fetching())))
    with contextlib.suppress(asyncio.CancelledError):
        await worker.run()


settings = Settings()
logs.set_up(debug=settings.debug_mode)
asyncio.run(main())
