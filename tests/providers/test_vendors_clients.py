"""A stand-in counts only where the vendor's own client can talk to it: theirs against ours, answers and errors."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import ollama
import openai
import pytest
from google import genai
from google.genai import errors, types

from tests.stand_ins.gemini_api import GeminiStandIn
from tests.stand_ins.ollama_api import OllamaStandIn
from tests.stand_ins.openai_api import LMStudioStandIn, OpenAIStandIn

STATUSES = [400, 401, 404, 408, 409, 429, 500, 503]
HELLO: Any = [{"role": "user", "content": "hello there"}]


# --- openai, which is also LM Studio's and llama.cpp's ---


@pytest.fixture(params=[OpenAIStandIn, LMStudioStandIn])
async def openai_client(request: pytest.FixtureRequest) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        request.param() as api,
        openai.AsyncOpenAI(base_url=api.base_url, api_key="key", max_retries=0) as client,
    ):
        yield client


async def test_openais_client_gets_answers_streams_models_and_vectors(openai_client: openai.AsyncOpenAI) -> None:
    reply = await openai_client.chat.completions.create(model="m", messages=HELLO)
    assert reply.choices[0].message.content == "Answer to: hello there"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == 12
    assert [model.id async for model in openai_client.models.list()]
    vectors = await openai_client.embeddings.create(model="e", input=["a", "bb"], encoding_format="float")
    assert sorted((found.index, found.embedding[0]) for found in vectors.data) == [(0, 1), (1, 2)]
    text, reasons, usage = "", [], []
    async for chunk in await openai_client.chat.completions.create(
        model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ):
        usage += [chunk.usage] if chunk.usage else []
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert (text, reasons, len(usage)) == ("Answer to: hello there", ["stop"], 1)


@pytest.mark.parametrize("status", STATUSES)
async def test_openais_client_knows_the_errors(openai_client: openai.AsyncOpenAI, status: int) -> None:
    messages: Any = [{"role": "user", "content": f"[mode={status}]"}]
    with pytest.raises(openai.APIStatusError, match=f"it is {status}") as caught:
        await openai_client.chat.completions.create(model="m", messages=messages)
    assert caught.value.status_code == status
    if status != 408:  # of which it has no class
        assert type(caught.value) is not openai.APIStatusError


async def test_openais_client_hears_of_an_error_within_a_stream(openai_client: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "[mode=error-midway]"}]
    with pytest.raises(openai.APIError, match="it is 500"):
        async for _ in await openai_client.chat.completions.create(model="m", messages=messages, stream=True):
            pass


async def test_what_openai_does_not_know_is_refused_and_what_lm_studio_knows_is_not() -> None:
    for stand_in, known in ((OpenAIStandIn, False), (LMStudioStandIn, True)):
        async with (
            stand_in() as api,
            openai.AsyncOpenAI(base_url=api.base_url, api_key="key", max_retries=0) as client,
        ):
            call = client.chat.completions.create(model="m", messages=HELLO, extra_body={"top_k": 5})
            if known:
                assert (await call).choices
            else:
                with pytest.raises(openai.BadRequestError):
                    await call


# --- google-genai ---


@pytest.fixture
async def gemini() -> AsyncIterator[Any]:
    async with GeminiStandIn() as api, httpx2.AsyncClient(trust_env=False) as http:
        options = types.HttpOptions(base_url=api.base_url, httpx_async_client=http)
        client = genai.Client(vertexai=False, api_key="key", http_options=options)
        yield client.aio.models
        client.close()


async def test_googles_client_gets_answers_streams_models_and_vectors(gemini: Any) -> None:
    reply = await gemini.generate_content(model="m", contents="hello there")
    assert reply.text == "Answer to: hello there"
    assert reply.candidates[0].finish_reason == types.FinishReason.STOP
    assert reply.usage_metadata.total_token_count == 12
    pieces = [piece async for piece in await gemini.generate_content_stream(model="m", contents="hello there")]
    assert "".join(piece.text or "" for piece in pieces) == "Answer to: hello there"
    assert pieces[-1].candidates[0].finish_reason == types.FinishReason.STOP
    assert [model.name async for model in await gemini.list()][:1] == ["models/gemini-3-flash-preview"]
    vectors = await gemini.embed_content(model="e", contents=["a", "bb"])
    assert [found.values[0] for found in vectors.embeddings] == [1, 2]


async def test_googles_client_sees_what_was_blocked(gemini: Any) -> None:
    reply = await gemini.generate_content(model="m", contents="[mode=blocked]")
    assert reply.prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT
    reply = await gemini.generate_content(model="m", contents="[mode=filtered]")
    assert reply.candidates[0].finish_reason == types.FinishReason.SAFETY


@pytest.mark.parametrize("status", STATUSES)
async def test_googles_client_knows_the_errors(gemini: Any, status: int) -> None:
    with pytest.raises(errors.APIError, match=f"it is {status}") as caught:
        await gemini.generate_content(model="m", contents=f"[mode={status}]")
    assert caught.value.code == status
    with pytest.raises(errors.APIError, match=f"it is {status}"):
        await (await gemini.generate_content_stream(model="m", contents=f"[mode={status}]")).__anext__()


async def test_googles_client_hears_of_an_error_within_a_stream(gemini: Any) -> None:
    with pytest.raises(errors.APIError, match="it is 500"):
        async for _ in await gemini.generate_content_stream(model="m", contents="[mode=error-midway]"):
            pass


# --- ollama ---


@pytest.fixture
async def ollama_client() -> AsyncIterator[ollama.AsyncClient]:
    async with OllamaStandIn() as api:
        client = ollama.AsyncClient(host=api.base_url, trust_env=False)
        yield client
        await client._client.aclose()


async def test_ollamas_client_gets_answers_streams_models_and_vectors(ollama_client: ollama.AsyncClient) -> None:
    reply = await ollama_client.chat("m", HELLO)
    assert (reply.message.content, reply.done_reason, reply.eval_count) == ("Answer to: hello there", "stop", 5)
    pieces = [piece async for piece in await ollama_client.chat("m", HELLO, stream=True)]
    assert "".join(piece.message.content or "" for piece in pieces) == "Answer to: hello there"
    assert [piece.done for piece in pieces[-2:]] == [False, True]
    assert [model.model for model in (await ollama_client.list()).models] == ["mistral:7b-instruct-q4_K_M"]
    vectors = await ollama_client.embed("e", ["a", "bb"])
    assert [vector[0] for vector in vectors.embeddings] == [1, 2]


@pytest.mark.parametrize("status", STATUSES)
async def test_ollamas_client_knows_the_errors(ollama_client: ollama.AsyncClient, status: int) -> None:
    with pytest.raises(ollama.ResponseError, match=f"it is {status}") as caught:
        await ollama_client.chat("m", [{"role": "user", "content": f"[mode={status}]"}])
    assert caught.value.status_code == status


async def test_ollamas_client_hears_of_an_error_within_a_stream(ollama_client: ollama.AsyncClient) -> None:
    messages = [{"role": "user", "content": "[mode=error-midway]"}]
    with pytest.raises(ollama.ResponseError, match="the runner has stopped"):
        async for _ in await ollama_client.chat("m", messages, stream=True):
            pass
