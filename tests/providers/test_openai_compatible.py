"""What only servers with OpenAI's API are asked. What all adapters have in common is in `test_every_adapter`."""

import json
from typing import Any

import pytest

from processors.ports import Usage
from providers.openai_client import make_client
from providers.openai_compatible import OpenAICompatibleProvider
from providers.retry_after import retry_after_s
from tests.providers.adapters import request
from tests.providers.conftest import Asked
from tests.stand_ins.openai_api import OpenAIStandIn


@pytest.mark.parametrize(("mode", "total"), [("no-total", 12), ("odd-usage", None), ("no-usage", None)])
@pytest.mark.parametrize("adapter", ["openai"], indirect=True)
async def test_an_answer_is_kept_however_its_tokens_are_counted(ask: Asked, mode: str, total: int | None) -> None:
    completion = await ask(request(f"[mode={mode}]"))
    assert completion.text.startswith("Answer to")
    assert (completion.usage and completion.usage.total_tokens) == total


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
@pytest.mark.parametrize("adapter", ["openai"], indirect=True)
async def test_an_answer_that_was_paid_for_is_kept_whatever_was_counted(
    provider: Any, usage: object, counted: Usage | None
) -> None:
    assert isinstance(provider, OpenAICompatibleProvider)
    choices = [{"message": {"content": "Because."}, "finish_reason": "stop"}]
    completion = provider._parse(json.dumps({"model": "m", "choices": choices, "usage": usage}).encode())
    assert (completion.text, completion.usage) == ("Because.", counted)


def test_a_wait_that_makes_no_sense_is_none() -> None:
    assert retry_after_s({}) is None
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({"retry-after": "-5"}) is None
    assert retry_after_s({"retry-after": "nan"}) is None
    assert retry_after_s({"retry-after": "9999999"}) == 86_400


async def streamed(provider: OpenAICompatibleProvider, prompt: str) -> str:
    pieces: list[str] = []

    async def on_delta(text: str) -> None:
        pieces.append(text)

    completion = await provider.stream(request(prompt), on_delta)
    assert completion.text == "".join(pieces)
    return completion.text


async def test_a_connection_is_kept_over_streams() -> None:
    async with OpenAIStandIn() as api:
        provider = OpenAICompatibleProvider(
            make_client(base_url=api.base_url, api_key="key", connections=5), name="openai", model="m"
        )
        for n in range(3):
            assert await streamed(provider, f"[tokens={n + 1}]") == " ".join(f"1w{word}" for word in range(n + 1))
        assert api.accepted == 1
        await provider.close()


async def test_a_server_that_closes_behind_streams_is_met_half_closed_only_once() -> None:
    async with OpenAIStandIn() as api:
        api.closes_streams = True
        provider = OpenAICompatibleProvider(
            make_client(base_url=api.base_url, api_key="key", connections=5), name="local", model="m"
        )
        for n in range(4):
            assert await streamed(provider, f"one {n}") == f"Answer to: one {n}"
        assert set(api.calls.values()) == {1}
        assert api.accepted == 4  # each stream has its own from then on
        await provider.close()
