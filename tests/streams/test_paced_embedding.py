import pytest

from processors.errors import RetryableError
from processors.ports import Embeddings
from settings import Settings
from streams.pace import Pace
from streams.paced_embedding import PacedEmbedding, paced


class Provider:
    name, embedding_model, extra = "openai", "e-1", "kept"

    def __init__(self) -> None:
        self.calls = 0
        self.error: RetryableError | None = None

    async def embed(self, texts, *, purpose, timeout_s) -> Embeddings:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return Embeddings(((1.0,),) * len(texts), "e-1", None)


class Time:
    now = 0.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def made(per_minute: float | None) -> tuple[Provider, PacedEmbedding, Time]:
    provider, time = Provider(), Time()
    return provider, PacedEmbedding(provider, Pace(per_minute, clock=time.clock, sleep=time.sleep)), time


async def test_calls_are_made_as_often_as_the_limit_says() -> None:
    provider, one, time = made(60)
    for _ in range(10):
        await one.embed(["a"], purpose="passage", timeout_s=5)
    assert provider.calls == 10
    assert 8.5 < time.now < 10


async def test_a_call_whose_turn_comes_too_late_is_not_made() -> None:
    provider, one, _ = made(1)
    await one.embed(["a"], purpose="query", timeout_s=5)
    with pytest.raises(RetryableError) as raised:
        await one.embed(["a"], purpose="query", timeout_s=5)
    assert (raised.value.code, provider.calls) == ("provider-http-429", 1)


async def test_after_a_429_nobody_asks_for_as_long_as_it_said() -> None:
    provider, one, time = made(None)
    provider.error = RetryableError("provider-http-429", "slower", retry_after_s=3)
    with pytest.raises(RetryableError):
        await one.embed(["a"], purpose="passage", timeout_s=5)
    provider.error = None
    await one.embed(["a"], purpose="passage", timeout_s=5)
    assert time.now == pytest.approx(3)


@pytest.mark.parametrize("name", ["openai", "openai/e-1"])
async def test_the_limit_is_the_providers_or_its_models(name: str) -> None:
    settings = Settings(_env_file=None, provider_requests_per_minute={name: 1, "openai/other": 0.1})
    one = paced(Provider(), settings)
    await one.embed(["a"], purpose="query", timeout_s=0.01)
    with pytest.raises(RetryableError):
        await one.embed(["a"], purpose="query", timeout_s=0.01)
    assert one.extra == "kept"
