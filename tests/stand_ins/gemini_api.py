"""A stand-in of Google's Gemini API (v1 and v1beta); Google's own client can talk to it. See `model_api`.

As a process: `python -m tests.stand_ins.gemini_api --port N`.
"""

import json
import re
from typing import Any

from tests.stand_ins.alone import run_alone
from tests.stand_ins.model_api import Call, ModelApi
from tests.stand_ins.openai_api import vector

_MODEL_CALL = re.compile(r"/v1(?:beta)?/models/([^/:?]+):(\w+)")
USAGE = {"promptTokenCount": 7, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 12}
USAGES: dict[str, Any] = {"no-total": {"promptTokenCount": 7, "candidatesTokenCount": 5}, "no-usage": None}
# It answers 400 to what it does not know.
FIELDS = {"contents", "systemInstruction", "generationConfig", "safetySettings", "tools", "toolConfig"}
CONFIG = {"temperature", "topP", "topK", "maxOutputTokens", "stopSequences", "seed", "presencePenalty",
          "frequencyPenalty", "responseMimeType", "responseJsonSchema", "candidateCount"}  # fmt: skip
STATUSES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
            409: "ABORTED", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}  # fmt: skip


class GeminiStandIn(ModelApi):
    """The server."""

    key_header = "x-goog-api-key"

    def read_call(self, method: str, path: str, body: dict[str, Any]) -> Call | None:
        found = _MODEL_CALL.match(path)
        if found is None or found.group(2) not in ("generateContent", "streamGenerateContent"):
            return None
        prompt = next(part["text"] for part in body["contents"][-1]["parts"] if "text" in part)
        return Call(prompt, found.group(2) == "streamGenerateContent", {**body, "model": found.group(1)})

    def other(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        if path.startswith(("/v1beta/models", "/v1/models")) and method == "GET":
            return {"models": [{"name": "models/gemini-3-flash-preview", "supportedGenerationMethods":
                                ["generateContent"]}, {"name": "models/gemini-embedding-001"}]}  # fmt: skip
        if (found := _MODEL_CALL.match(path)) and found.group(2) == "batchEmbedContents":
            texts = [asked["content"]["parts"][0]["text"] for asked in body["requests"]]
            vectors = [{"values": vector(text)} for text in texts]
            return {"embeddings": vectors[1:] if "[mode=few]" in texts[0] else vectors}
        return None

    def refusal(self, call: Call) -> int | None:
        known = call.body.keys() <= {*FIELDS, "model"} and call.body.get("generationConfig", {}).keys() <= CONFIG
        return None if known else 400

    def reply(self, call: Call, text: str, mode: str) -> dict[str, Any]:
        candidates = [_candidate([{"text": "Let me think.", "thought": True}, {"text": text}], _reason(mode))]
        if mode == "empty":
            candidates = [{"index": 0, "content": {"role": "model"}, "finishReason": "STOP"}]
        reply: dict[str, Any] = {"candidates": candidates, "modelVersion": call.body["model"], "responseId": "r-1"}
        if mode == "blocked":  # the prompt was: there is no candidate at all
            reply |= {"candidates": [], "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
        if mode == "no-choices":
            reply["candidates"] = []
        usage = USAGES.get(mode, USAGE)
        return reply if usage is None else reply | {"usageMetadata": usage}

    def pieces(self, call: Call, text: str, mode: str) -> list[bytes]:
        whole = self.reply(call, text, mode)
        if not whole["candidates"]:
            return [_event(whole), _event({"modelVersion": whole["modelVersion"]})]
        words = text.split(" ")
        parts = [{"text": word if n == len(words) - 1 else f"{word} "} for n, word in enumerate(words)]
        begun = [{**whole, "candidates": [_candidate([part], None)]} for part in parts]
        for piece in begun:
            piece.pop("usageMetadata", None)
        thought = {**whole, "candidates": [_candidate([{"text": "Hm.", "thought": True}], None)]}
        return [*(_event(piece) for piece in (thought, *begun)),
                _event({**whole, "candidates": [_candidate([{"text": ""}], _reason(mode))]})]  # fmt: skip

    def error(self, status: int, *, wait_s: float | None = None) -> dict[str, Any]:
        details = [{"@type": "type.googleapis.com/google.rpc.Help"}]
        if wait_s is not None:
            details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait_s}s"})
        told = {"code": status, "message": f"it is {status}", "status": STATUSES.get(status, "UNKNOWN")}
        return {"error": {**told, "details": details}}

    def too_long(self) -> dict[str, Any]:
        told = "The input token count (1300000) exceeds the maximum number of tokens allowed (1048576)."
        return {"error": {"code": 400, "message": told, "status": "INVALID_ARGUMENT"}}


def _candidate(parts: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": parts}}
    return candidate if reason is None else candidate | {"finishReason": reason}


def _reason(mode: str) -> str:
    return {"filtered": "SAFETY", "length": "MAX_TOKENS", "odd-reason": "LANGUAGE"}.get(mode, "STOP")


def _event(piece: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(piece)}\r\n\r\n".encode()


if __name__ == "__main__":
    run_alone(GeminiStandIn)
