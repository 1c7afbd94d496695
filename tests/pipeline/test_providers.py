"""Every provider through the whole product, each with the stand-in of its API; and what callers see of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from settings import PROVIDERS
from tests.conftest import KafkaForTests
from tests.deployment import Deployment, client_of
from tests.pictures import JPEG, base64_of
from tests.pipeline.test_rest import problem
from tests.providers.adapters import ADAPTERS, KEY
from tests.stand_ins.model_api import ModelApi
from tests.waiting import until

pytestmark = pytest.mark.integration
GIVEN = {"openai": "OPENAI_BASE_URL", "gemini": "GEMINI_BASE_URL", "ollama": "OLLAMA_BASE_URL",
         "lmstudio": "LMSTUDIO_BASE_URL", "qwen3vl": "QWEN3_VL_BASE_URL", "local": "LOCAL_BASE_URL"}  # fmt: skip


@pytest.fixture
async def apis() -> AsyncIterator[dict[str, ModelApi]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(ADAPTERS[name].stand_in()) for name in PROVIDERS}


@pytest.fixture
async def deployment(
    kafka: KafkaForTests, database: str, topic_prefix: str, tmp_path: Path, apis: dict[str, ModelApi]
) -> AsyncIterator[Deployment]:
    environment = {GIVEN[name]: api.base_url for name, api in apis.items()}
    environment["LMSTUDIO_BASE_URL"] = environment["LMSTUDIO_BASE_URL"].removesuffix("/v1")
    environment |= {"OPENAI_API_KEY": KEY, "GEMINI_API_KEY": KEY, "RATE_LIMIT_ADMIN_REQUESTS": "1000"}
    deployment = Deployment(kafka, database, topic_prefix, tmp_path, environment)
    done = await asyncio.to_thread(deployment.run, "setup", "--partitions", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    yield deployment
    deployment.close()


async def test_every_provider_answers_and_is_told_with_what_it_can_do(
    deployment: Deployment, apis: dict[str, ModelApi]
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        for name in PROVIDERS:
            body = {"prompt": f"Hello {name}?", "provider": name, "generation_config": {"temperature": 0.5}}
            reply = await client.post("/chat/", json=body)
            assert reply.status_code == 200, reply.text
            assert reply.json()["result"] == {"text": f"Answer to: Hello {name}?", "finish_reason": "stop"}
            assert reply.json()["meta"]["provider"] == name
            assert apis[name].calls == {f"Hello {name}?": 1}

        async def all_are_well() -> dict[str, Any] | None:
            items = (await client.get("/providers")).json()["items"]
            found = {item["name"]: item for item in items}
            return found if all(item["health"] == "ok" for item in items) and len(items) == len(PROVIDERS) else None

        told = await until(all_are_well)
        assert {name for name, item in told.items() if not item["stream"]} == {"qwen3vl"}
        assert {name for name, item in told.items() if not item["images"]} == {"local"}
        assert {name for name, item in told.items() if not item["embeddings"]} == {"qwen3vl", "local"}
        assert told["gemini"]["models"][0] == "gemini-3-flash-preview"
        listed = (await client.get("/lmstudio/models/")).json()["data"]
        assert [model["id"] for model in listed] == ["qwen2.5-7b-instruct", "text-embedding-nomic-embed-text-v1.5"]

        await images_where_somebody_sees(client, apis)
        await parameters_that_are_not_there(client, apis)
        await what_a_provider_withholds(client)
        await a_deadline_closes_the_connection(client, apis["ollama"])
    log = "".join(process.log.read_text() for process in deployment.processes)
    assert KEY not in log


async def images_where_somebody_sees(client: httpx.AsyncClient, apis: dict[str, ModelApi]) -> None:
    text = base64_of(JPEG)
    for name in PROVIDERS:
        reply = await client.post("/chat/", json={"prompt": "What is it?", "provider": name, "image": text})
        if name == "local":
            body = problem(reply, 400, "images-unsupported")
            assert set(body["providers"]) == set(PROVIDERS) - {"local"}
            assert "job_id" not in body  # nothing was published
            continue
        assert reply.status_code == 200, reply.text
        sent = json.dumps(apis[name].last[0]).replace("_", "/").replace("-", "+")  # Gemini's is base64 for URLs
        assert text in sent


async def parameters_that_are_not_there(client: httpx.AsyncClient, apis: dict[str, ModelApi]) -> None:
    config = {"top_k": 5, "mode": "lora"}
    named = {"prompt": "Which?", "provider": "gemini", "generation_config": config}
    body = problem(await client.post("/chat/", json=named), 400, "unsupported-parameter")
    assert body["parameters"] == ["mode"]
    assert "job_id" not in body  # nothing was published
    unnamed = {"prompt": "Which?", "generation_config": config}  # the first one present is OpenAI
    body = problem(await client.post("/chat/", json=unnamed), 400, "unsupported-parameter")
    assert "openai does not have the parameters top_k, mode" in body["detail"]
    reply = await client.post("/chat/", json={**unnamed, "generation_config": {**config, "strict": False}})
    assert reply.status_code == 200
    assert reply.json()["meta"]["dropped"] == ["top_k", "mode"]
    assert "top_k" not in apis["openai"].last[0]
    problem(await client.post("/chat/", json={**named, "generation_config": {"n": 2}}), 422, "invalid-body")


async def what_a_provider_withholds(client: httpx.AsyncClient) -> None:
    reply = await client.post("/chat/", json={"prompt": "[mode=blocked]", "provider": "gemini"})
    assert reply.status_code == 200
    assert (reply.json()["status"], reply.json()["confidence"]) == ("fallback", "low")


async def a_deadline_closes_the_connection(client: httpx.AsyncClient, api: ModelApi) -> None:
    asked = asyncio.create_task(
        client.post("/chat/", json={"prompt": "[mode=hang]", "provider": "ollama", "timeout": 3.0})
    )
    await until(lambda: api.busy == 1)
    await until(lambda: api.busy == 0, within_s=3.2)  # it would hang for an hour
    problem(await asked, 504, "timeout")
