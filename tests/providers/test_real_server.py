"""The adapters of OpenAI's API on a real server of it: llama.cpp with the small model that comes as a package."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedded.model import model_file
from embedded.ports import free_port
from processors.errors import PermanentError, RetryableError
from providers.lmstudio import make_lmstudio
from providers.local import make_local
from providers.openai_client import make_client
from providers.openai_compatible import COMPATIBLE, OpenAICompatibleProvider
from schemas.generation import ResponseFormat
from tests.providers.adapters import request
from tests.providers.conftest import Asked
from tests.waiting import until

pytestmark = pytest.mark.integration
MODEL = "SmolLM2-135M-Instruct"
SCHEMA = {"type": "object", "properties": {"sky": {"type": "string", "maxLength": 10}}, "required": ["sky"],
          "additionalProperties": False}  # fmt: skip


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    # One thread: two that wait for each other spin, and where others have the cores they do hardly anything else.
    command = [sys.executable, "-m", "embedded.model_server", "--port", str(port), "--slots", "2", "--threads", "1",
               "--model", str(model_file()), "--alias", MODEL]  # fmt: skip
    log = tmp_path_factory.mktemp("model") / "log"
    with log.open("wb") as writer:
        process = subprocess.Popen(
            command, stdout=writer, stderr=subprocess.STDOUT, cwd=Path(__file__).parent.parent.parent
        )
    deadline = time.monotonic() + 60
    with httpx.Client(trust_env=False) as client:
        while True:
            try:
                if client.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/v1"
    process.kill()
    process.wait(10)


@pytest.fixture(params=["local", "lmstudio", "openai"])
async def provider(request: pytest.FixtureRequest, base_url: str) -> AsyncIterator[OpenAICompatibleProvider]:
    provider: OpenAICompatibleProvider
    if request.param == "local":
        provider = make_local(base_url=base_url, model=MODEL, embedding_url=None, embedding_model="", connections=4)
    elif request.param == "lmstudio":
        provider = make_lmstudio(base_url=base_url, api_key="k", model=MODEL, embedding_model="e", connections=4)
    else:
        client = make_client(base_url=base_url, api_key="k", connections=4)
        provider = OpenAICompatibleProvider(client, name="openai", model=MODEL, dialect=COMPATIBLE)
    yield provider
    await provider.close()


@pytest.fixture(params=["complete", "stream"])
async def ask(request: pytest.FixtureRequest, provider: OpenAICompatibleProvider) -> Asked:
    return Asked(provider, request.param)


async def test_it_answers_with_usage_and_ends_at_the_limit(ask: Asked) -> None:
    completion = await ask(request("Why is the sky blue?", max_tokens=8, temperature=0.0, seed=7))
    assert completion.text.strip()
    assert (completion.model, completion.finish_reason) == (MODEL, "length")
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 8
    assert completion.usage.prompt_tokens > 5
    assert len(ask.told) in (0, *range(4, 20))


async def test_the_same_seed_gives_the_same_answer(ask: Asked) -> None:
    asked_for = request("Tell me a story.", max_tokens=12, temperature=1.5, top_p=0.9, seed=3)
    texts = {(await ask(asked_for)).text for _ in range(2)}
    assert len(texts) == 1


async def test_every_parameter_that_it_is_said_to_have_is_taken(ask: Asked) -> None:
    given: dict[str, Any] = {
        "temperature": 0.1, "top_p": 0.5, "max_tokens": 4, "top_k": 5, "seed": 1, "stop": ("\n\n",),
        "presence_penalty": 0.1, "frequency_penalty": 0.1, "repetition_penalty": 1.1,
    }  # fmt: skip
    has = ask.provider.capabilities.parameters
    assert (await ask(request("Hello.", **{name: value for name, value in given.items() if name in has}))).text


async def test_an_answer_follows_a_schema(ask: Asked) -> None:
    wanted = ResponseFormat.model_validate({"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}})
    completion = await ask(request("Which colour has the sky?", max_tokens=60, temperature=0.0, response_format=wanted))
    assert json.loads(completion.text).keys() == {"sky"}


async def test_what_it_refuses_is_final(ask: Asked) -> None:
    with pytest.raises(PermanentError) as caught:
        await ask(request("word " * 6000, max_tokens=4))
    assert caught.value.code == "context-too-long"


async def test_its_models_are_listed(provider: OpenAICompatibleProvider) -> None:
    assert await provider.models() == (MODEL,)


async def test_who_leaves_frees_the_slots(provider: OpenAICompatibleProvider) -> None:
    """Four long answers take both slots for tens of seconds; once they are cut, the next is answered at once."""
    calls = [
        asyncio.create_task(Asked(provider, "stream")(request("Count to a thousand.", max_tokens=900)))
        for _ in range(4)
    ]
    await asyncio.sleep(0.5)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)

    async def answered() -> bool:
        try:
            await provider.complete(request("Hello.", max_tokens=2))
        except RetryableError:  # a connection that the server was just closing: as a stage does, it is asked again
            return False
        return True

    await until(answered, within_s=10)


async def test_a_server_that_is_gone_is_unreachable() -> None:
    provider = make_local(
        base_url=f"http://127.0.0.1:{free_port()}/v1",
        model=MODEL,
        embedding_url=None,
        embedding_model="",
        connections=1,
    )
    with pytest.raises(RetryableError):
        await provider.complete(request("Hello."))
    await provider.close()
