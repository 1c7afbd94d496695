"""A stand-in of the server of Qwen3-VL, by its contract: there is no client of a vendor. See `model_api`.

As a process: `python -m tests.stand_ins.qwen3vl_api --port N`.
"""

from typing import Any

from tests.stand_ins.alone import run_alone
from tests.stand_ins.model_api import Call, ModelApi

FIELDS = {"prompt", "instruction", "gen_config", "image", "mode"}


class Qwen3VlStandIn(ModelApi):
    """The server; it answers 422 to a body that is not as its contract has it."""

    def read_call(self, method: str, path: str, body: dict[str, Any]) -> Call | None:
        return Call(body["prompt"], False, body) if (method, path) == ("POST", "/generate") else None

    def other(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        return None

    def refusal(self, call: Call) -> int | None:
        body = call.body
        fits = (
            body.keys() == FIELDS
            and isinstance(body["instruction"], list)
            and isinstance(body["gen_config"], dict)
            and isinstance(body["image"], (str, type(None)))
            and body["mode"] in ("base", "lora")
        )
        return None if fits else 422

    def reply(self, call: Call, text: str, mode: str) -> dict[str, Any]:
        reason = {"filtered": "content_filter", "length": "max_new_tokens"}.get(mode, "stop")
        return {"text": text, "finish_reason": reason, "provider": "qwen3vl"} if mode != "no-choices" else {}

    def pieces(self, call: Call, text: str, mode: str) -> list[bytes]:
        raise AssertionError("it has no streams")

    def error(self, status: int, *, wait_s: float | None = None) -> dict[str, Any]:
        return {"detail": f"it is {status}"}

    def too_long(self) -> dict[str, Any]:
        return {"detail": "the prompt does not fit the context window of the model"}


if __name__ == "__main__":
    run_alone(Qwen3VlStandIn)
