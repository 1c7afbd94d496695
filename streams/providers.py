"""Which providers this deployment has, and how each is made. One without its key or address is absent.

An adapter and its vendor's SDK are only loaded where they are used: they are a third of a worker's memory.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pydantic import SecretStr

from processors.ports import CompletionProvider
from settings import Settings

N = TypeVar("N", int, float)
SPARE = 2  # connections over those of the calls: whether it is well is also asked while all of them are busy


class Adapter(CompletionProvider, Protocol):
    """A provider with connections of its own."""

    async def close(self) -> None:
        """Close them."""
        ...


@dataclass(frozen=True, slots=True)
class Configured:
    """A provider that has what it needs. `concurrency`: calls at once; `make`: its adapter."""

    concurrency: int
    make: Callable[[], Adapter]


def configured(settings: Settings) -> dict[str, Configured]:
    """Those that are allowed and have their key or address, by name, in the order of `ALLOWED_PROVIDERS`."""
    return {
        name: found
        for name in settings.allowed_providers
        if name in REGISTRY and (found := REGISTRY[name](settings)) is not None
    }


def slots_of(settings: Settings, provider: str, model: str) -> int:
    """Calls at once, in one process."""
    limits = _limits(settings.provider_concurrency, provider, model)
    return min(limits, default=settings.local_slots if provider == "local" else settings.completion_concurrency)


def requests_per_minute(settings: Settings, provider: str, model: str) -> float | None:
    """Calls of all workers; None: no limit."""
    return min(_limits(settings.provider_requests_per_minute, provider, model), default=None)


def _limits(limits: Mapping[str, N], provider: str, model: str) -> list[N]:
    """Those that hold for the model: a worker asks one of each provider."""
    return [limits[name] for name in (provider, f"{provider}/{model}") if name in limits]


def _openai(settings: Settings) -> Configured | None:
    key, slots = _told(settings.openai_api_key), slots_of(settings, "openai", settings.openai_model)
    if not key or not settings.openai_base_url:
        return None

    def make() -> Adapter:
        from providers.openai_client import make_client
        from providers.openai_compatible import OpenAICompatibleProvider

        client = make_client(base_url=settings.openai_base_url, api_key=key, connections=slots + SPARE)
        return OpenAICompatibleProvider(
            client, name="openai", model=settings.openai_model, embedding_model=settings.openai_embedding_model
        )

    return Configured(slots, make)


def _gemini(settings: Settings) -> Configured | None:
    key, slots = _told(settings.gemini_api_key), slots_of(settings, "gemini", settings.gemini_model)
    if not key or not settings.gemini_base_url:
        return None

    def make() -> Adapter:
        from providers.gemini import make_gemini

        return make_gemini(
            base_url=settings.gemini_base_url, api_key=key, model=settings.gemini_model,
            embedding_model=settings.gemini_embedding_model, connections=slots + SPARE,
        )  # fmt: skip

    return Configured(slots, make)


def _ollama(settings: Settings) -> Configured | None:
    base_url, slots = settings.ollama_base_url, slots_of(settings, "ollama", settings.ollama_model)
    if not base_url:
        return None

    def make() -> Adapter:
        from providers.ollama import make_ollama

        return make_ollama(
            base_url=base_url, model=settings.ollama_model, embedding_model=settings.ollama_embedding_model,
            connections=slots + SPARE,
        )  # fmt: skip

    return Configured(slots, make)


def _lmstudio(settings: Settings) -> Configured | None:
    base_url, slots = settings.lmstudio_base_url, slots_of(settings, "lmstudio", settings.lmstudio_model or "")
    if not base_url:
        return None

    def make() -> Adapter:
        from providers.lmstudio import make_lmstudio

        return make_lmstudio(
            base_url=with_v1(base_url), api_key=_told(settings.lmstudio_api_key) or "none",
            model=settings.lmstudio_model or "", embedding_model=settings.lmstudio_embedding_model,
            connections=slots + SPARE,
        )  # fmt: skip

    return Configured(slots, make)


def _qwen3vl(settings: Settings) -> Configured | None:
    base_url, slots = settings.qwen3_vl_base_url, slots_of(settings, "qwen3vl", "")
    if not base_url:
        return None

    def make() -> Adapter:
        from providers.qwen3vl import make_qwen3vl

        return make_qwen3vl(base_url=base_url, connections=slots + SPARE)

    return Configured(slots, make)


def _local(settings: Settings) -> Configured | None:
    base_url, embedding_url = settings.local_base_url, settings.local_embedding_url
    slots = slots_of(settings, "local", settings.local_model)
    if not base_url and not embedding_url:
        return None

    def make() -> Adapter:
        from providers.local import make_local

        return make_local(
            base_url=base_url, model=settings.local_model, embedding_url=embedding_url,
            embedding_model=settings.local_embedding_model, connections=slots + SPARE,
            adapters=settings.local_adapters_path is not None,
        )  # fmt: skip

    return Configured(slots, make)


REGISTRY: dict[str, Callable[[Settings], Configured | None]] = {
    "openai": _openai, "gemini": _gemini, "ollama": _ollama, "lmstudio": _lmstudio, "qwen3vl": _qwen3vl,
    "local": _local,
}  # fmt: skip


def with_v1(base_url: str) -> str:
    """The address of OpenAI's API on a server that is named without its path."""
    bare = base_url.rstrip("/")
    return bare if bare.endswith("/v1") else f"{bare}/v1"


def _told(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
