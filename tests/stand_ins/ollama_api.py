"""A stand-in of Ollama's API; its own client can talk to it. See `model_api`.

As a process: `python -m tests.stand_ins.ollama_api --port N`.
"""

import json
from typing import Any

from tests.stand_ins.alone import run_alone
from tests.stand_ins.model_api import Call, ModelApi
from tests.stand_ins.openai_api import vector

AT = "2026-01-02T03:04:05.678901Z"
COUNTS = {"prompt_eval_count": 7, "eval_count": 5}
TIMES = {"total_duration": 5_000_000, "load_duration": 1, "prompt_eval_duration": 2, "eval_duration": 3}


class OllamaStandIn(ModelApi):
    """The server. What has no `stream: false` is streamed."""

    stream_type = "application/x-ndjson"

    def read_call(self, method: str, path: str, body: dict[str, Any]) -> Call | None:
        if path != "/api/chat":
            return None
        return Call(body["messages"][-1]["content"], body.get("stream", True), body)

    def other(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        if path == "/api/tags":
            name = "mistral:7b-instruct-q4_K_M"
            details = {"format": "gguf", "family": "llama", "parameter_size": "7B", "quantization_level": "Q4_K_M"}
            return {"models": [{"name": name, "model": name, "modified_at": AT, "size": 4_113_301_824,
                                "digest": "6577803aa9a0", "details": details}]}  # fmt: skip
        if path == "/api/embed":
            texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
            vectors = [vector(text) for text in texts]
            return {"model": body["model"], "embeddings": vectors[1:] if "[mode=few]" in texts[0] else vectors,
                    "prompt_eval_count": 7}  # fmt: skip
        return {} if path == "/" else None

    def reply(self, call: Call, text: str, mode: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "thinking": "Let me think."}
        if mode == "no-choices":  # as little as there may be of an answer
            return {"model": call.body["model"], "created_at": AT, "message": message, "done": False}
        return {**self._line(call, message), **self._end(mode)}

    def pieces(self, call: Call, text: str, mode: str) -> list[bytes]:
        words = text.split(" ")
        texts = [word if n == len(words) - 1 else f"{word} " for n, word in enumerate(words)]
        lines = [self._line(call, {"role": "assistant", "content": "", "thinking": "Hm."})]
        lines += [self._line(call, {"role": "assistant", "content": text}) for text in texts]
        if mode != "no-choices":
            lines.append({**self._line(call, {"role": "assistant", "content": ""}), **self._end(mode)})
        return [json.dumps(line).encode() + b"\n" for line in lines]

    def error(self, status: int, *, wait_s: float | None = None) -> dict[str, Any]:
        return {"error": f"it is {status}"}

    def too_long(self) -> dict[str, Any]:
        return {"error": "the input length exceeds the context length"}

    def frame(self, data: bytes) -> bytes:
        return data + b"\n"

    def error_piece(self) -> bytes:
        return self.frame(json.dumps({"error": "the runner has stopped", "status_code": 500}).encode())

    def _line(self, call: Call, message: dict[str, Any]) -> dict[str, Any]:
        return {"model": call.body["model"], "created_at": AT, "message": message, "done": False}

    def _end(self, mode: str) -> dict[str, Any]:
        counts: dict[str, Any] = {} if mode == "no-usage" else COUNTS
        return {"done": True, "done_reason": "length" if mode == "length" else "stop", **TIMES, **counts}


if __name__ == "__main__":
    run_alone(OllamaStandIn)
