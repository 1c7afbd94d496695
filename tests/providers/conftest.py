"""`adapter`, its `api` and its `provider`: for every test that names them, once with each adapter."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from processors.ports import Completion, CompletionRequest
from tests.providers.adapters import ADAPTERS, Adapter
from tests.stand_ins.model_api import ModelApi


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return ADAPTERS[request.param]


@pytest.fixture
async def api(adapter: Adapter) -> AsyncIterator[ModelApi]:
    async with adapter.stand_in() as api:
        yield api


@pytest.fixture
async def provider(adapter: Adapter, api: ModelApi) -> AsyncIterator[Any]:
    provider = adapter.make(api.base_url)
    yield provider
    await provider.close()


class Asked:
    """A provider asked in one of its two ways; `told`: the pieces that a stream came in."""

    def __init__(self, provider: Any, way: str) -> None:
        self.provider, self.way, self.told = provider, way, list[str]()

    async def __call__(self, request: CompletionRequest) -> Completion:
        self.told = []
        if self.way == "complete":
            completion: Completion = await self.provider.complete(request)
            return completion
        completion = await self.provider.stream(request, self._tell)
        assert "".join(self.told) == completion.text
        return completion

    async def _tell(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture(params=["complete", "stream"])
def ask(request: pytest.FixtureRequest, provider: Any) -> Asked:
    return Asked(provider, request.param)
