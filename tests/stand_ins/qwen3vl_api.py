"""A stand-in of the server of Qwen3-VL, by its contract: there is no client of a vendor. See `model_api`.

Its `/train_lora` learns by heart: from then on `mode: "lora"` answers an example's input (its instruction, where it has
none) with its output. The contract does not say what a training is answered with: here a list of losses, of which none
is the server's. What an example's instruction says happens to the training: `[held]`, `[mode=...]`.
`trainings`: the bodies that came.

As a process: `python -m tests.stand_ins.qwen3vl_api --port N`.
"""

from typing import Any

from tests.stand_ins.alone import run_alone
from tests.stand_ins.model_api import Call, ModelApi

FIELDS = {"prompt", "instruction", "gen_config", "image", "mode"}
TRAINING_FIELDS = {"data": list, "epochs": int, "lr": float, "batch_size": int}
EXAMPLE_FIELDS = {"instruction", "input", "output"}


class Qwen3VlStandIn(ModelApi):
    """The server; it answers 422 to a body that is not as its contract has it."""

    def __init__(self, *, port: int = 0, delay_s: float = 0.0) -> None:
        super().__init__(port=port, delay_s=delay_s)
        self.trainings: list[dict[str, Any]] = []
        self.learnt: dict[str, str] = {}

    def read_call(self, method: str, path: str, body: dict[str, Any]) -> Call | None:
        if (method, path) == ("POST", "/train_lora"):
            self.trainings.append(body)
            return Call(f"train: {body['data'][0]['instruction']}", False, body)
        return Call(body["prompt"], False, body) if (method, path) == ("POST", "/generate") else None

    def other(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        return None

    def refusal(self, call: Call) -> int | None:
        body = call.body
        if "data" in body:
            is_right = body.keys() == TRAINING_FIELDS.keys() and all(
                isinstance(body[name], kind) for name, kind in TRAINING_FIELDS.items()
            )
            return None if is_right and all(one.keys() == EXAMPLE_FIELDS for one in body["data"]) else 422
        fits = (
            body.keys() == FIELDS
            and isinstance(body["instruction"], list)
            and isinstance(body["gen_config"], dict)
            and isinstance(body["image"], (str, type(None)))
            and body["mode"] in ("base", "lora")
        )
        return None if fits else 422

    def reply(self, call: Call, text: str, mode: str) -> dict[str, Any]:
        if "data" in call.body:
            self.learnt = {one["input"] or one["instruction"]: one["output"] for one in call.body["data"]}
            steps = call.body["epochs"] * -(-len(call.body["data"]) // call.body["batch_size"])
            return {"status": "ok", "losses": [round(3 / step, 3) for step in range(1, steps + 1)]}
        if call.body["mode"] == "lora":
            text = self.learnt.get(call.prompt, f"As one who has learnt: {call.prompt[:100]}")
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
