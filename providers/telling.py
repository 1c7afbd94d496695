"""How an answer that comes piece by piece is told of."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing


async def tell(texts: AsyncGenerator[str, None], on_delta: Callable[[str], Awaitable[None]]) -> None:
    """Tell each, and close the generator, with the connection that it reads from, however this ends.

    What `on_delta` raises is no failure of the provider: it passes by what the generator catches.
    """
    async with aclosing(texts):
        async for text in texts:
            await on_delta(text)
