"""Our adapter and the vendor's own client against the same stand-in."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from uuid import uuid4

import openai
import pytest

from processors.errors import PermanentError, RetryableError
from processors.ports import Completion, CompletionRequest, Usage
from providers.openai_compatible import OpenAICompatibleProvider, make_client
from providers.retry_after import retry_after_s
from schemas.requests import GenerationConfig
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until


@pytest.fixture
async def api() -> AsyncIterator[OpenAIStandIn]:
    async with OpenAIStandIn() as api:
        yield api


@pytest.fixture
async def provider(api: OpenAIStandIn) -> AsyncIterator[OpenAICompatibleProvider]:
    client = make_client(base_url=api.base_url, api_key="key", connections=50)
    provider = OpenAICompatibleProvider(client, name="openai", model="gpt-4o-mini")
    yield provider
    await provider.close()


def request(prompt: str, **generation) -> CompletionRequest:
    return CompletionRequest(uuid4(), prompt, "be brief", GenerationConfig(**generation), timeout_s=30)


async def test_an_answer_has_text_model_usage_and_finish_reason(provider: OpenAICompatibleProvider) -> None:
    completion = await provider.complete(request("hello", temperature=0.2, top_p=1, max_tokens=9))
    assert completion.text == "Answer to: hello"
    assert (completion.model, completion.finish_reason) == ("gpt-4o-mini", "stop")
    assert completion.usage is not None
    assert completion.usage.total_tokens == 12


async def test_what_was_asked_for_is_what_is_sent(api: OpenAIStandIn, provider: OpenAICompatibleProvider) -> None:
    await provider.complete(request("hello", temperature=0.2, top_p=0.5, max_tokens=9))
    assert api.last == (
        {
            "model": "gpt-4o-mini", "temperature": 0.2, "top_p": 0.5, "max_tokens": 9,
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
        },
        "Bearer key",
    )  # fmt: skip
    await provider.complete(CompletionRequest(uuid4(), "hello", None, GenerationConfig(), timeout_s=30))
    assert api.last[0] == {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("base_url", "name"),
    [("https://api.openai.com/v1", "max_completion_tokens"), ("https://openai.example/v1", "max_tokens")],
)
async def test_openai_itself_has_another_name_for_the_limit(base_url: str, name: str) -> None:
    client = make_client(base_url=base_url, api_key="key", connections=1)
    provider = OpenAICompatibleProvider(client, name="openai", model="m")
    body = provider._body(request("hello", max_tokens=9))
    assert {field: value for field, value in body.items() if "max" in field} == {name: 9}
    await provider.close()


@pytest.mark.parametrize(("mode", "total"), [("no-total", 12), ("odd-usage", None), ("no-usage", None)])
async def test_an_answer_is_kept_however_its_tokens_are_counted(
    provider: OpenAICompatibleProvider, mode: str, total: int | None
) -> None:
    completion = await provider.complete(request(f"[mode={mode}]"))
    assert completion.text.startswith("Answer to")
    assert (completion.usage and completion.usage.total_tokens) == total


async def test_the_vendors_own_client_talks_to_the_stand_in(api: OpenAIStandIn) -> None:
    async with openai.AsyncOpenAI(base_url=api.base_url, api_key="key", max_retries=0) as client:
        reply = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
        assert reply.choices[0].message.content == "Answer to: hello"
        assert [model.id async for model in client.models.list()] == ["stand-in"]
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "[mode=429-ms]"}])


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
async def test_these_statuses_may_work_later(provider: OpenAICompatibleProvider, status: int) -> None:
    with pytest.raises(RetryableError) as caught:
        await provider.complete(request(f"[mode={status}]"))
    assert caught.value.code == f"provider-http-{status}"


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 422])
async def test_these_statuses_are_final(provider: OpenAICompatibleProvider, status: int) -> None:
    with pytest.raises(PermanentError) as caught:
        await provider.complete(request(f"[mode={status}]"))
    assert caught.value.code == f"provider-http-{status}"


@pytest.mark.parametrize(("how", "low", "high"), [("seconds", 1, 1), ("date", 0, 2), ("ms", 0.3, 0.3)])
async def test_the_wait_that_was_asked_for_is_passed_on(
    provider: OpenAICompatibleProvider, how: str, low: float, high: float
) -> None:
    with pytest.raises(RetryableError) as caught:
        await provider.complete(request(f"[mode=429-{how}]"))
    assert caught.value.retry_after_s is not None
    assert low <= caught.value.retry_after_s <= high


@pytest.mark.parametrize("mode", ["garbage", "shape", "no-choices", "huge"])
async def test_a_reply_that_makes_no_sense_is_final(provider: OpenAICompatibleProvider, mode: str) -> None:
    with pytest.raises(PermanentError) as caught:
        await provider.complete(request(f"[mode={mode}]"))
    assert caught.value.code == "provider-invalid-reply"


@pytest.mark.parametrize("mode", ["truncated", "close"])
async def test_a_connection_that_breaks_may_work_later(provider: OpenAICompatibleProvider, mode: str) -> None:
    with pytest.raises(RetryableError) as caught:
        await provider.complete(request(f"[mode={mode}]"))
    assert caught.value.code == "provider-unreachable"


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    client = make_client(base_url="http://127.0.0.1:1/v1", api_key="key", connections=1)
    provider = OpenAICompatibleProvider(client, name="local", model="m")
    with pytest.raises(RetryableError) as caught:
        await provider.complete(request("hello"))
    assert caught.value.code == "provider-unreachable"
    await provider.close()


@pytest.mark.parametrize("mode", ["hang", "drip"])
async def test_cancelling_closes_the_connection(
    provider: OpenAICompatibleProvider, api: OpenAIStandIn, mode: str
) -> None:
    call = asyncio.create_task(provider.complete(request(f"[mode={mode}]")))
    await until(lambda: api.busy == 1)
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    await until(lambda: api.open == 0, within_s=5)  # the server itself would go on for an hour


@pytest.mark.parametrize(
    ("base_url", "field"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://notopenai.com/v1", "max_tokens"),
        ("http://127.0.0.1:1234/v1", "max_tokens"),
    ],
)
async def test_the_limit_is_named_as_its_server_knows_it(base_url: str, field: str) -> None:
    client = make_client(base_url=base_url, api_key="key", connections=1)
    provider = OpenAICompatibleProvider(client, name="openai", model="m")
    body = provider._body(request("hello", max_tokens=9))
    assert {name for name in body if "tokens" in name} == {field}
    assert body[field] == 9
    await provider.close()


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 5}, Usage(7, 5, 12)),
        ({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 13}, Usage(7, 5, 13)),
        ({"prompt_tokens": 7}, Usage(7, 0, 7)), ({"prompt_tokens": "many"}, None), ({"total_tokens": 12}, None),
        ("free", None), (None, None),
    ],
)  # fmt: skip
async def test_an_answer_that_was_paid_for_is_kept_whatever_was_counted(
    provider: OpenAICompatibleProvider, usage: object, counted: Usage | None
) -> None:
    choices = [{"message": {"content": "Because."}, "finish_reason": "stop"}]
    completion = provider._parse(json.dumps({"model": "m", "choices": choices, "usage": usage}).encode())
    assert (completion.text, completion.usage) == ("Because.", counted)


def test_a_wait_that_makes_no_sense_is_none() -> None:
    assert retry_after_s({}) is None
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({"retry-after": "-5"}) is None
    assert retry_after_s({"retry-after": "nan"}) is None
    assert retry_after_s({"retry-after": "9999999"}) == 86_400


async def told(provider: OpenAICompatibleProvider, prompt: str) -> tuple[Completion, list[str]]:
    pieces: list[str] = []

    async def on_delta(text: str) -> None:
        pieces.append(text)

    return await provider.stream(request(prompt), on_delta), pieces


async def test_a_streamed_answer_is_the_whole_one_and_is_told_as_it_comes(provider: OpenAICompatibleProvider) -> None:
    completion, pieces = await told(provider, "[tokens=20][pace=0.001]")
    assert len(pieces) == 20
    assert completion.text == "".join(pieces)
    assert completion.finish_reason == "stop"
    assert completion.usage == Usage(7, 5, 12)


async def test_a_stream_that_breaks_off_may_work_later(provider: OpenAICompatibleProvider) -> None:
    with pytest.raises(RetryableError) as caught:
        await told(provider, "[tokens=20][breaks=5]")
    assert caught.value.code == "provider-unreachable"


@pytest.mark.parametrize("mode", ["garbage", "shape", "no-choices", "huge"])
async def test_a_stream_that_makes_no_sense_is_final(provider: OpenAICompatibleProvider, mode: str) -> None:
    with pytest.raises(PermanentError) as caught:
        await told(provider, f"[mode={mode}]")
    assert caught.value.code == "provider-invalid-reply"


async def test_the_vendors_own_client_streams_from_the_stand_in(api: OpenAIStandIn) -> None:
    async with openai.AsyncOpenAI(base_url=api.base_url, api_key="key", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "[tokens=3]"}], stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "1w0 1w1 1w2"
