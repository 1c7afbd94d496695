"""Adapters whose key or address may change while they work: the next call goes the new way, those under way end."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from processors.ports import Capabilities, Completion, CompletionRequest, EmbeddingPurpose, Embeddings
from settings import Settings
from streams.providers import Adapter, configured

logger = logging.getLogger(__name__)

# What is taken over; all else of a provider (its models, its limits) is what it was at start.
FIELDS = {
    "openai": ("openai_api_key", "openai_base_url"),
    "gemini": ("gemini_api_key", "gemini_base_url"),
    "ollama": ("ollama_base_url",),
    "lmstudio": ("lmstudio_api_key", "lmstudio_base_url"),
    "qwen3vl": ("qwen3_vl_base_url",),
    "local": ("local_base_url", "local_embedding_url"),
}


class _Generation:
    """One adapter with the calls that it has under way."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter, self.calls, self.is_retired = adapter, 0, False


class LiveProvider:
    """Looks like the adapter in it."""

    def __init__(self, adapter: Adapter) -> None:
        self._now = _Generation(adapter)
        self._retired: list[_Generation] = []
        self._closing: set[asyncio.Task[None]] = set()

    def replace(self, adapter: Adapter) -> None:
        """Have the next call go to this one; the last is closed once nobody uses it."""
        old, self._now = self._now, _Generation(adapter)
        old.is_retired = True
        self._retired.append(old)
        self._close_unused(old)

    async def close(self) -> None:
        """Close all of them, whoever is calling."""
        for generation in (*self._retired, self._now):
            await generation.adapter.close()
        self._retired.clear()
        await asyncio.gather(*self._closing, return_exceptions=True)

    @asynccontextmanager
    async def _calling(self) -> AsyncIterator[Any]:
        used = self._now
        used.calls += 1
        try:
            yield used.adapter
        finally:
            used.calls -= 1
            self._close_unused(used)

    def _close_unused(self, generation: _Generation) -> None:
        if not generation.is_retired or generation.calls or generation not in self._retired:
            return
        self._retired.remove(generation)
        task = asyncio.get_running_loop().create_task(self._closed(generation.adapter))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    @staticmethod
    async def _closed(adapter: Adapter) -> None:
        with contextlib.suppress(Exception):  # whatever it is: nobody uses it any more
            await adapter.close()

    # --- the adapter ---

    @property
    def name(self) -> str:
        """As the adapter's."""
        return self._now.adapter.name

    @property
    def model(self) -> str:
        """As the adapter's."""
        return self._now.adapter.model

    @property
    def capabilities(self) -> Capabilities:
        """As the adapter's."""
        return self._now.adapter.capabilities

    @property
    def embedding_model(self) -> str:
        """As the adapter's; AttributeError where it has none."""
        adapter: Any = self._now.adapter
        model: str = adapter.embedding_model
        return model

    async def complete(self, request: CompletionRequest) -> Completion:
        """As the adapter's."""
        async with self._calling() as adapter:
            answer: Completion = await adapter.complete(request)
            return answer

    async def stream(self, request: CompletionRequest, on_delta: Callable[[str], Awaitable[None]]) -> Completion:
        """As the adapter's."""
        async with self._calling() as adapter:
            answer: Completion = await adapter.stream(request, on_delta)
            return answer

    async def embed(self, texts: Sequence[str], *, purpose: EmbeddingPurpose, timeout_s: float) -> Embeddings:
        """As the adapter's."""
        async with self._calling() as adapter:
            found: Embeddings = await adapter.embed(texts, purpose=purpose, timeout_s=timeout_s)
            return found

    async def models(self) -> tuple[str, ...]:
        """As the adapter's."""
        async with self._calling() as adapter:
            found: tuple[str, ...] = await adapter.models()
            return found


class LiveProviders:
    """Those of a worker, each replaced when what it is reached by has changed."""

    def __init__(self, settings: Settings, adapters: dict[str, Adapter]) -> None:
        """`adapters`: as made from `settings`."""
        self._settings = settings
        self.providers = {name: LiveProvider(adapter) for name, adapter in adapters.items()}

    def take(self, new: Settings) -> None:
        """Called with new settings.

        Raises:
            ValueError: A key or address is gone; its provider keeps the last one.
        """
        gone = []
        for name, fields in FIELDS.items():
            update = {field: getattr(new, field) for field in fields}
            if all(getattr(self._settings, field) == value for field, value in update.items()):
                continue
            changed = self._settings.model_copy(update=update)
            found = configured(changed).get(name)
            provider = self.providers.get(name)
            if provider is None:
                if found is not None:
                    logger.warning("the provider %s has what it needs now: workers have it after a restart", name)
            elif found is None:
                gone.append(" or ".join(field.upper() for field in fields) + f" is gone, which {name} needs")
                continue
            else:
                provider.replace(found.make())
                logger.info("the provider %s is called with its new key or address from now on", name)
            self._settings = changed
        if gone:
            raise ValueError("; ".join(gone))
