"""The adapters, each with the stand-in of its API: what the shared table of cases runs over."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from processors.ports import CompletionRequest, Usage
from providers.gemini import make_gemini
from providers.lmstudio import make_lmstudio
from providers.local import make_local
from providers.ollama import make_ollama
from providers.openai_client import make_client
from providers.openai_compatible import OpenAICompatibleProvider
from providers.qwen3vl import make_qwen3vl
from schemas.generation import GenerationConfig
from tests.stand_ins.gemini_api import GeminiStandIn
from tests.stand_ins.model_api import ModelApi
from tests.stand_ins.ollama_api import OllamaStandIn
from tests.stand_ins.openai_api import LlamaCppStandIn, LMStudioStandIn, OpenAIStandIn
from tests.stand_ins.qwen3vl_api import Qwen3VlStandIn

USAGE = Usage(7, 5, 12)
KEY = "sk-never-to-be-told-4711"


@dataclass(frozen=True)
class Adapter:
    """`lacks`: modes of the stand-in for which the API has no words; `usage`: what an answer is counted as."""

    name: str
    stand_in: Callable[[], ModelApi]
    make: Callable[[str], Any]
    model: str = "m-1"
    lacks: frozenset[str] = frozenset()
    usage: Usage | None = USAGE


def _openai(base_url: str) -> OpenAICompatibleProvider:
    client = make_client(base_url=base_url, api_key=KEY, connections=50)
    return OpenAICompatibleProvider(client, name="openai", model="m-1", embedding_model="e-1")


def _lmstudio(base_url: str) -> OpenAICompatibleProvider:
    return make_lmstudio(base_url=base_url, api_key=KEY, model="m-1", embedding_model="e-1", connections=50)


def _local(base_url: str) -> OpenAICompatibleProvider:
    return make_local(
        base_url=base_url, model="m-1", embedding_url=base_url, embedding_model="e-1", connections=50
    )  # fmt: skip


def _gemini(base_url: str) -> Any:
    return make_gemini(base_url=base_url, api_key=KEY, model="m-1", embedding_model="e-1", connections=50)


def _ollama(base_url: str) -> Any:
    return make_ollama(base_url=base_url, model="m-1", embedding_model="e-1", connections=50)


def _qwen3vl(base_url: str) -> Any:
    return make_qwen3vl(base_url=base_url, connections=50)


ADAPTERS = {
    adapter.name: adapter
    for adapter in (
        Adapter("openai", OpenAIStandIn, _openai),
        Adapter("lmstudio", LMStudioStandIn, _lmstudio),
        Adapter("local", LlamaCppStandIn, _local),
        Adapter("gemini", GeminiStandIn, _gemini),
        Adapter("ollama", OllamaStandIn, _ollama, lacks=frozenset({"filtered"})),
        Adapter("qwen3vl", Qwen3VlStandIn, _qwen3vl, model="Qwen3-VL-4B-Instruct", usage=None),
    )
}

STREAMING = [name for name in ADAPTERS if name != "qwen3vl"]
EMBEDDING = ["openai", "lmstudio", "local", "gemini", "ollama"]


def request(prompt: str, *, instruction: str | None = "be brief", **more: Any) -> CompletionRequest:
    """`more`: of the request, or of its generation_config."""
    own: dict[str, Any] = {name: more.pop(name) for name in ("images", "model", "timeout_s", "history") if name in more}
    return CompletionRequest(uuid4(), prompt, instruction, GenerationConfig(**more), **{"timeout_s": 30} | own)
