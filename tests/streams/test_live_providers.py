"""A provider whose key changes: the next call goes the new way, the old adapter closes after its last call."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from settings import Settings
from streams import live_providers
from streams.live_providers import FIELDS, LiveProvider, LiveProviders
from streams.providers import REGISTRY, Configured


class FakeAdapter:
    """Answers with its key, once it may."""

    name, model, embedding_model = "openai", "m", "e"
    capabilities = SimpleNamespace(embeds=True)

    def __init__(self, key: str) -> None:
        self.key, self.may_end, self.closed = key, asyncio.Event(), False
        self.may_end.set()

    async def complete(self, request: object) -> str:
        await self.may_end.wait()
        assert not self.closed
        return self.key

    stream = embed = complete

    async def models(self) -> tuple[str, ...]:
        return (self.key,)

    async def close(self) -> None:
        self.closed = True


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_calls_under_way_end_with_the_old_adapter_which_is_closed_then() -> None:
    old: Any = FakeAdapter("old")
    new: Any = FakeAdapter("new")
    provider = LiveProvider(old)
    old.may_end.clear()
    first, second = (asyncio.create_task(provider.complete(None)) for _ in range(2))  # type: ignore[arg-type]
    await settled()
    provider.replace(new)
    assert await provider.complete(None) == "new"  # type: ignore[arg-type, comparison-overlap]
    assert not old.closed
    first.cancel()  # a job that is cancelled
    await settled()
    assert not old.closed
    old.may_end.set()
    assert await second == "old"  # type: ignore[comparison-overlap]
    await settled()
    assert old.closed
    assert not new.closed
    await provider.close()
    assert new.closed


async def test_an_adapter_that_nobody_uses_is_closed_at_once() -> None:
    old: Any = FakeAdapter("old")
    provider = LiveProvider(old)
    provider.replace(FakeAdapter("new"))  # type: ignore[arg-type]
    await settled()
    assert old.closed


def with_keys(**keys: str) -> Settings:
    return Settings(_env_file=None, allowed_providers=("openai", "gemini"), **keys)  # type: ignore[arg-type]


async def test_only_what_changed_is_made_anew_and_what_is_gone_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def configured(settings: Settings) -> dict[str, Configured]:
        found = {}
        for name, key in (("openai", settings.openai_api_key), ("gemini", settings.gemini_api_key)):
            if key is not None:
                value = key.get_secret_value()

                def make(value: str = value) -> Any:
                    made.append(value)
                    return FakeAdapter(value)

                found[name] = Configured(1, make)
        return found

    monkeypatch.setattr(live_providers, "configured", configured)
    adapters: Any = {"openai": FakeAdapter("o1"), "gemini": FakeAdapter("g1")}
    live = LiveProviders(with_keys(openai_api_key="o1", gemini_api_key="g1"), adapters)
    live.take(with_keys(openai_api_key="o2", gemini_api_key="g1"))
    assert made == ["o2"]
    assert await live.providers["openai"].models() == ("o2",)
    with pytest.raises(ValueError, match="GEMINI_API_KEY"):
        live.take(with_keys(openai_api_key="o3"))
    assert made == ["o2", "o3"]
    assert await live.providers["gemini"].models() == ("g1",)
    live.take(with_keys(openai_api_key="o3", gemini_api_key="g1"))
    assert made == ["o2", "o3"]


def test_each_provider_is_followed() -> None:
    assert FIELDS.keys() == REGISTRY.keys()
    assert {field for fields in FIELDS.values() for field in fields} == {
        field for field in Settings.model_fields
        if field == "local_embedding_url"
        or (field.endswith(("_api_key", "_base_url")) and not field.startswith(("kafka", "vault", "qdrant")))
    }  # fmt: skip
