"""`assistant train NAME` and `assistant adapters`, as people see them."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from client.api import AssistantClient, ClientError
from client.following import INTERRUPTED, Bar, followed, say


class TrainingBar(Bar):
    """Tells how far a training is."""

    def working(self, view: dict[str, Any]) -> None:
        """Where its job is, as polled."""
        far = view.get("training")
        if far is None:
            self.tell(view.get("stage", "accepted"))
        else:
            self.tell(far_of(far), far["step"], far["steps"] or None)


def far_of(far: dict[str, Any]) -> str:
    """`epoch 2 of 3, step 17 of 50, loss 2.31`; of a provider that says nothing on the way, that it trains."""
    if not far["steps"]:
        return "training"
    loss = f", loss {far['loss']:.3g}" if far.get("loss") is not None else ""
    return f"epoch {far['epoch']} of {far['epochs']}, step {far['step']} of {far['steps']}{loss}"


def train(
    home: Path, body: dict[str, Any], *, root_password: str | None, as_json: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> int:  # fmt: skip
    """Train an adapter and follow it to its end; Ctrl-C cancels it. Returns the exit code."""
    errors = Console(stderr=True)
    try:
        with AssistantClient(home, os.environ, root_password=root_password) as client, TrainingBar(errors) as bar:
            bar.begin(body["name"])
            result = _trained(client, body, bar, sleep)
            shown = client.get(f"/instruction/adapters/{body['name']}", {})
    except ClientError as error:
        say(errors, str(error))
        return 1
    except KeyboardInterrupt:
        say(errors, "interrupted: the training is cancelled")
        return INTERRUPTED
    if as_json:
        print(json.dumps(shown, ensure_ascii=False, indent=1))  # noqa: T201 that is the command's result
        return 0
    _show(Console(), result, shown)
    return 0


def list_adapters(home: Path, *, root_password: str | None, as_json: bool) -> int:
    """List them; returns the exit code."""
    try:
        with AssistantClient(home, os.environ, root_password=root_password) as client:
            items: list[dict[str, Any]] = client.get("/instruction/adapters", {})["items"]
    except ClientError as error:
        say(Console(stderr=True), str(error))
        return 1
    if as_json:
        print(json.dumps(items, ensure_ascii=False, indent=1))  # noqa: T201 as above
        return 0
    table = Table("adapter", "provider", "status", "created", "examples", "loss", "held out")
    for item in items:
        status = item["status"] + (f" ({item['error']['code']})" if item["error"] else "")
        losses = [point["loss"] for point in item["losses"]]
        loss = _change(losses[0], losses[-1]) if losses else ""
        held_out = _change(item["held_out_loss_before"], item["held_out_loss_after"])
        table.add_row(
            item["name"], item["provider"], status, item["created_at"][:19], str(item["examples"]), loss, held_out
        )  # fmt: skip
    Console().print(table)
    return 0


def delete_adapter(home: Path, name: str, *, root_password: str | None) -> int:
    """Delete one; returns the exit code."""
    try:
        with AssistantClient(home, os.environ, root_password=root_password) as client:
            client.send("DELETE", f"/instruction/adapters/{name}")
    except ClientError as error:
        say(Console(stderr=True), str(error))
        return 1
    return 0


def _trained(
    client: AssistantClient, body: dict[str, Any], bar: TrainingBar, sleep: Callable[[float], None]
) -> dict[str, Any]:  # fmt: skip
    job_id = client.send("POST", "/instruction/train", body)["job_id"]
    view = followed(client, job_id, bar.working, sleep)
    if view["status"] == "error":
        raise ClientError(f"{view['error']['code']}: {view['error']['message']}")
    result: dict[str, Any] = view["result"]
    return result


def _show(console: Console, result: dict[str, Any], shown: dict[str, Any]) -> None:
    learnt = f"{result['examples']} examples, {result['held_out']} held out"
    left_out = f", {result['left_out']} left out" if result["left_out"] else ""
    say(console, f"{result['adapter']} is ready on {result['provider']}: {learnt}{left_out}")
    for name, before, after in (
        ("loss", result["loss_first"], result["loss_last"]),
        ("loss on those held out", result["held_out_loss_before"], result["held_out_loss_after"]),
    ):
        if change := _change(before, after):
            say(console, f"{name}: {change}")
    if shown["answers"]:
        table = Table("asked", "expected", "before", "after")
        for answer in shown["answers"]:
            asked = answer["input"] or answer["instruction"]
            table.add_row(*map(_brief, (asked, answer["expected"], answer["before"], answer["after"])))
        console.print(table)
    chosen = json.dumps({"mode": "lora", "adapter": result["adapter"]})
    say(console, f"use it with generation_config: {chosen}")


def _change(before: float | None, after: float | None) -> str:
    return f"{before:.3g} -> {after:.3g}" if before is not None and after is not None else ""


def _brief(text: str) -> str:
    told = " ".join(text.split())[:60]
    return told.replace("[", r"\[")  # in a table it would be markup
