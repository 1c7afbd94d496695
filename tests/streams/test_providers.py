"""Which providers a deployment has, by its settings; and that nothing is loaded for the others."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from faust.types import TP

from processors.errors import PermanentError, RetryableError
from settings import PROVIDERS, Settings
from streams.guards import partitions_share
from streams.provider_watch import ProviderWatch
from streams.providers import REGISTRY, configured, requests_per_minute
from tests.deployment import ROOT
from tests.providers.adapters import ADAPTERS, KEY, request
from tests.waiting import until

NEEDS: dict[str, dict[str, Any]] = {
    "openai": {"openai_api_key": KEY}, "gemini": {"gemini_api_key": KEY},
    "ollama": {"ollama_base_url": "http://h:1"}, "lmstudio": {"lmstudio_base_url": "http://h:1"},
    "qwen3vl": {"qwen3_vl_base_url": "http://h:1"}, "local": {"local_base_url": "http://h:1/v1"},
}  # fmt: skip
ADDRESSES = {
    "openai": "openai_base_url", "gemini": "gemini_base_url", "ollama": "ollama_base_url",
    "lmstudio": "lmstudio_base_url", "qwen3vl": "qwen3_vl_base_url", "local": "local_base_url",
}  # fmt: skip


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


def test_the_registry_has_exactly_what_may_be_allowed() -> None:
    assert tuple(REGISTRY) == PROVIDERS == tuple(NEEDS)


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_is_there_with_its_key_or_address_and_absent_without(name: str) -> None:
    assert list(configured(settings(**NEEDS[name]))) == [name]
    assert configured(settings(**NEEDS[name], allowed_providers=[other for other in PROVIDERS if other != name])) == {}
    assert configured(settings(**dict.fromkeys(NEEDS[name], ""))) == {}


def test_local_is_there_with_either_of_its_servers() -> None:
    both = settings(local_base_url="http://h:1/v1", local_embedding_url="http://h:2/v1", local_embedding_model="e")
    one = settings(local_embedding_url="http://h:2/v1", local_embedding_model="e")
    for given, model in ((both, "SmolLM2-135M-Instruct"), (one, "")):
        adapter: Any = configured(given)["local"].make()
        assert (adapter.capabilities.embeds, adapter.embedding_model, adapter.model) == (True, "e", model)
        (offer,) = ProviderWatch({"local": adapter}).offers()
        assert offer.embedding_model == "e"
        assert "embeddings" in offer.can
        assert (offer.can == ("embeddings",)) == (model == "")  # of whom nobody asks an answer


def test_all_stand_in_the_order_in_which_they_are_allowed() -> None:
    everything = {key: value for needs in NEEDS.values() for key, value in needs.items()}
    assert list(configured(settings(**everything, allowed_providers=["local", "nobody", "gemini"]))) == [
        "local", "gemini",
    ]  # fmt: skip


@pytest.mark.parametrize("name", PROVIDERS)
async def test_what_is_made_of_the_settings_reaches_its_api(name: str) -> None:
    async with ADAPTERS[name].stand_in() as api:
        base_url = api.base_url.removesuffix("/v1") if name == "lmstudio" else api.base_url
        found = configured(settings(**NEEDS[name] | {ADDRESSES[name]: base_url}))[name]
        adapter = found.make()
        assert (await adapter.complete(request("hello"))).text == "Answer to: hello"
        assert adapter.name == name
        assert found.concurrency == (4 if name == "local" else 512)
        await adapter.close()


@pytest.mark.parametrize("name", PROVIDERS)
async def test_it_is_asked_whether_it_is_well_while_all_its_calls_are_busy(name: str) -> None:
    async with ADAPTERS[name].stand_in() as api:
        base_url = api.base_url.removesuffix("/v1") if name == "lmstudio" else api.base_url
        few = NEEDS[name] | {ADDRESSES[name]: base_url, "completion_concurrency": 1, "local_slots": 1}
        adapter = configured(settings(**few))[name].make()
        call = asyncio.create_task(adapter.complete(request("[mode=hang]")))
        await until(lambda: api.busy == 1)
        assert await asyncio.wait_for(adapter.models(), 2)
        call.cancel()
        await asyncio.wait({call})
        await adapter.close()


async def test_lm_studio_is_asked_for_the_first_model_that_it_lists_where_none_is_set() -> None:
    async with ADAPTERS["lmstudio"].stand_in() as api:
        for model, asked in ((None, "qwen2.5-7b-instruct"), ("mine", "mine")):
            adapter = configured(settings(lmstudio_base_url=api.base_url, lmstudio_model=model))["lmstudio"].make()
            assert (await adapter.complete(request("hello"))).model == asked
            await adapter.close()


@pytest.mark.parametrize("name", ["openai", "lmstudio", "local", "gemini", "ollama", "qwen3vl"])
@pytest.mark.parametrize("own", ["localhost", "named"])
async def test_a_proxy_of_the_environment_is_not_told_what_goes_to_ones_own_network(
    monkeypatch: pytest.MonkeyPatch, name: str, own: str
) -> None:
    """OpenAI and Gemini are asked by way of it, unless they are on this machine."""
    async with ADAPTERS[name].stand_in() as api, ADAPTERS[name].stand_in() as proxy:
        for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(variable, proxy.base_url.removesuffix("/v1"))
        for variable in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(variable, raising=False)
        adapter = ADAPTERS[name].make(api.base_url if own == "localhost" else "http://model.invalid:1" + api.path)
        try:
            await adapter.models()
        except (RetryableError, PermanentError):
            assert own == "named"
        finally:
            await adapter.close()
        assert bool(proxy.accepted) is (own == "named" and name in ("openai", "gemini"))


def test_a_role_that_asks_no_provider_loads_no_sdk() -> None:
    script = (
        "import sys, streams.worker, streams.providers, ingress.app\n"
        "print([name for name in ('openai', 'google.genai', 'httpx2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_limits_hold_for_a_provider_and_for_its_model() -> None:
    given = settings(
        **NEEDS["openai"], **NEEDS["local"],
        provider_concurrency={"openai": 64, "openai/gpt-4o-mini": 8, "openai/x": 1},
        provider_requests_per_minute={"openai": 500, "openai/gpt-4o-mini": 900, "local": 7.5},
    )  # fmt: skip
    found = configured(given)
    assert (found["openai"].concurrency, found["local"].concurrency) == (8, 4)
    assert requests_per_minute(given, "openai", "gpt-4o-mini") == 500
    assert requests_per_minute(given, "local", "m") == 7.5
    assert requests_per_minute(given, "gemini", "m") is None


def test_each_worker_takes_as_much_of_a_limit_as_it_has_of_the_partitions() -> None:
    class Consumer:
        def __init__(self) -> None:
            self.ours = [TP("t", 0), TP("t", 1), TP("t", 2), TP("other", 0)]

        def assignment(self) -> Any:
            return self.ours

        def topic_partitions(self, topic: str) -> int:
            return 12

    class App:
        consumer = Consumer()

    now = 0.0
    share = partitions_share(App(), "t", clock=lambda: now)  # type: ignore[arg-type]  # as much of it as is asked
    assert share() == 0.25
    App.consumer.ours = []
    assert share() == 0.25  # looked at once a second
    now = 2.0
    assert share() == 1 / 12  # it has none at the moment, and still asks
