"""A stand-in as a process of its own."""

import argparse
import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class StandIn(Protocol):
    """A server with an address."""

    @property
    def base_url(self) -> str: ...


def run_alone(stand_in: Callable[..., AbstractAsyncContextManager[StandIn]]) -> None:
    """Serve at `--port` (any free one without) and print the base URL, until the process is ended."""

    async def serve(port: int) -> None:
        async with stand_in(port=port) as api:
            print(api.base_url, flush=True)
            await asyncio.Event().wait()

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(serve(parser.parse_args().port))
