"""`assistant agent`: gives an agent a goal, shows its steps as they come, and asks before it calls out."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from client.api import FIRST_POLL_S, MAX_POLL_S, AssistantClient, ClientError

Approve = Literal["ask", "always", "never"]
SHOWN_CHARS = 300


def agent(home: Path, body: dict[str, Any], *, root_password: str | None, approve: Approve, as_json: bool) -> int:
    """Run it to its end and print the answer; returns the exit code."""
    console, errors = Console(), Console(stderr=True)

    def show(step: dict[str, Any]) -> None:
        given = json.dumps(step["action_input"], ensure_ascii=False)
        errors.print(f"{step['step']}. {step['thought']}", style="dim", markup=False, highlight=False)
        errors.print(f"   {step['action']} {given}"[:SHOWN_CHARS], markup=False, highlight=False, soft_wrap=True)

    def may(call: dict[str, Any]) -> bool:
        if approve != "ask" or not sys.stdin.isatty():
            return approve == "always"
        errors.print(f"It wants to call {call['tool']} with {json.dumps(call['action_input'])}", markup=False)
        return errors.input("Let it? [y/N] ").strip().lower() in ("y", "yes")

    try:
        with AssistantClient(home, os.environ, root_password=root_password) as client:
            view = follow(client, body, on_step=show, may=may)
    except ClientError as error:
        errors.print(str(error), markup=False, highlight=False)
        return 1
    if as_json:
        print(json.dumps(view, ensure_ascii=False, indent=1))  # noqa: T201 that is the command's result
        return 0 if view["status"] == "completed" else 1
    if view["status"] == "error":
        errors.print(f"{view['error']['code']}: {view['error']['message']}", markup=False, highlight=False)
        return 1
    result = view["result"]
    console.print(result["answer"], markup=False, highlight=False, soft_wrap=True)
    if result.get("status") == "refused":
        errors.print(f"(refused: {result['reason']})", markup=False, highlight=False)
        return 2
    return 0


def follow(
    client: AssistantClient, body: dict[str, Any], *, on_step: Callable[[dict[str, Any]], None],
    may: Callable[[dict[str, Any]], bool], sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:  # fmt: skip
    """Give the goal and look until the run has ended.

    Args:
        client: Whose run it is.
        body: Of `POST /agents/run`.
        on_step: Told of each step once its tool has answered.
        may: Asked once for each call that waits for approval.
        sleep: Between looks.

    Returns:
        The run, as `GET /agents/{job_id}` has it at its end.

    Raises:
        ClientError: There is no run.
    """
    accepted = client.send("POST", "/agents/run", body)
    if accepted.get("status") == "refused":
        return {"job_id": accepted["job_id"], "status": "completed", "history": [], "result": accepted, "error": None}
    job_id, shown, decided, poll = accepted["job_id"], 0, set[int](), FIRST_POLL_S
    while True:
        view = client.get(f"/agents/{job_id}", {})
        for step in view["history"]:
            if step["step"] > shown and step["observation"] is not None:
                shown, poll = step["step"], FIRST_POLL_S
                on_step(step)
        if view["status"] != "pending":
            return view
        call = view.get("requires_action")
        if call is not None and call["step"] not in decided:
            decided.add(call["step"])
            client.send("POST", f"/agents/{job_id}/{'approve' if may(call) else 'reject'}")
        sleep(poll)
        poll = min(MAX_POLL_S, poll * 1.5)
