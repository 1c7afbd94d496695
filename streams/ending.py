"""How what runs beside the stages is ended."""

import asyncio
import contextlib
from typing import Any

CANCEL_AGAIN_S = 5.0


async def end(task: "asyncio.Future[Any]") -> None:
    """Cancel a task, and wait until it has ended; raises what it raised.

    Again, where it goes on: a library may lose a cancellation that meets an answer, or wait without end for its
    connections to close. A worker was seen to stand still so when it was told to stop, just as it looked at topics.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_S)
    with contextlib.suppress(asyncio.CancelledError):
        await task
