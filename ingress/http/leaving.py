"""Whether the caller is still there."""

from fastapi import Request


async def left(request: Request) -> None:
    """Return once the caller has closed the connection. Only after the body was read: what comes is taken away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
