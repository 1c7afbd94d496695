"""A stand-in of the OpenAI API, fast enough to measure against; the official client can talk to it.

See `model_api` for what prompts and paths choose. As a process:
`python -m tests.stand_ins.openai_api --port N [--delay-ms N]`.
"""

import argparse
import asyncio
import json
from typing import Any

from tests.stand_ins.model_api import Call, ModelApi

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
USAGES: dict[str, Any] = {"no-total": {"prompt_tokens": 7, "completion_tokens": 5},
                          "odd-usage": {"tokens": "many"}, "no-usage": None}  # fmt: skip
# It answers 400 to what it does not know.
PARAMETERS = {"model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "n", "seed",
              "max_completion_tokens", "stop", "presence_penalty", "frequency_penalty", "response_format", "user",
              "logit_bias", "tools", "tool_choice", "metadata", "store"}  # fmt: skip


class OpenAIStandIn(ModelApi):
    """The server."""

    path = "/v1"
    parameters = PARAMETERS
    model_ids: tuple[str, ...] = ("stand-in",)

    def read_call(self, method: str, path: str, body: dict[str, Any]) -> Call | None:
        if path != "/v1/chat/completions":
            return None
        content = body["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else content[0]["text"]
        return Call(prompt, bool(body.get("stream")), body)

    def other(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        if path == "/v1/models":
            models = [{"id": name, "object": "model", "created": 1, "owned_by": "tests"} for name in self.model_ids]
            return {"object": "list", "data": models}
        if path == "/v1/embeddings":
            texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
            data = [{"object": "embedding", "index": n, "embedding": vector(text)} for n, text in enumerate(texts)]
            if "[mode=few]" in texts[0]:
                data.pop()
            return {"object": "list", "model": body["model"], "data": data[::-1],
                    "usage": {"prompt_tokens": 7, "total_tokens": 7}}  # fmt: skip
        return None

    def refusal(self, call: Call) -> int | None:
        return None if call.body.keys() <= self.parameters else 400

    def reply(self, call: Call, text: str, mode: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if mode == "blocked":  # OpenAI says so beside the content, which is null
            message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
        choice = {"index": 0, "finish_reason": _reason(mode), "message": message}
        return {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": call.body["model"],
            "choices": [] if mode == "no-choices" else [choice], "usage": USAGES.get(mode, USAGE),
        }  # fmt: skip

    def pieces(self, call: Call, text: str, mode: str) -> list[bytes]:
        words = text.split(" ")
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": word if n == len(words) - 1 else f"{word} "} for n, word in enumerate(words)]
        if mode == "blocked":
            deltas = [{"role": "assistant", "refusal": "I cannot help"}, {"refusal": " with that."}]
        chunks = [_chunk(call, [{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
        chunks.append(_chunk(call, [{"index": 0, "delta": {}, "finish_reason": _reason(mode)}]))
        if mode == "no-choices":
            chunks = [_chunk(call, []), _chunk(call, [])]
        if call.body.get("stream_options", {}).get("include_usage") and mode != "no-usage":
            chunks.append({**_chunk(call, []), "usage": USAGES.get(mode, USAGE)})
        return [*(_event(json.dumps(chunk)) for chunk in chunks), _event("[DONE]")]

    def error(self, status: int, *, wait_s: float | None = None) -> dict[str, Any]:
        return {"error": {"message": f"it is {status}", "type": "error", "param": None, "code": str(status)}}

    def too_long(self) -> dict[str, Any]:
        told = "Your input exceeds what this model takes."
        return {"error": {"message": told, "type": "invalid_request_error", "param": "messages",
                          "code": "context_length_exceeded"}}  # fmt: skip


class LMStudioStandIn(OpenAIStandIn):
    """LM Studio: the same API with more parameters, and one fewer kind of reply."""

    parameters = PARAMETERS | {"top_k", "repeat_penalty"}
    model_ids: tuple[str, ...] = ("qwen2.5-7b-instruct", "text-embedding-nomic-embed-text-v1.5")

    def refusal(self, call: Call) -> int | None:
        wanted = call.body.get("response_format", {}).get("type", "text")
        return 400 if wanted == "json_object" else super().refusal(call)

    def too_long(self) -> dict[str, Any]:
        return {"error": "The number of tokens to keep from the initial prompt is greater than the context length."}


class LlamaCppStandIn(LMStudioStandIn):
    """llama.cpp's server, as far as it differs: the real one is asked in `test_real_server`."""

    model_ids = ("SmolLM2-135M-Instruct",)

    def too_long(self) -> dict[str, Any]:
        told = "request (9412 tokens) exceeds what there is (8192 tokens), try increasing it"
        return {"error": {"code": 400, "message": told, "type": "exceed_context_size_error", "n_ctx": 8192}}

    def refusal(self, call: Call) -> int | None:
        return None if call.body.keys() <= self.parameters else 400


def vector(text: str) -> list[float]:
    """A text's; the first number is its length, so that each can be told from the others."""
    return [float(len(text)), 0.25, -0.5, 1e-7]


def _reason(mode: str) -> str:
    return {"filtered": "content_filter", "length": "length"}.get(mode, "stop")


def _chunk(call: Call, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": call.body["model"],
        "choices": choices,
    }  # fmt: skip


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


async def _main(port: int, delay_s: float) -> None:
    async with OpenAIStandIn(port=port, delay_s=delay_s) as api:
        print(api.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(_main(given.port, given.delay_ms / 1000))
