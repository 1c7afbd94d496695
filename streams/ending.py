"""How what runs beside the stages is ended."""

import asyncio
import contextlib
from typing import Any


async def end(task: "asyncio.Future[Any]") -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
