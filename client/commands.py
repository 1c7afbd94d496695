"""`assistant chat`, `assistant jobs`, `assistant cancel` and `assistant workers`, as people see them."""

import json
import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from client.api import AssistantClient, ClientError

STAGES = {
    "accepted": "accepted", "sanitize_prompt": "reading the prompt", "limit_rate": "checking the rate",
    "route_job": "on its way to the provider", "waiting-for-provider": "waiting for the provider",
    "generate_completion": "the model is writing", "embed_texts": "the model is reading",
    "generate_speech": "the voice is speaking", "train_adapter": "the model is learning",
}  # fmt: skip


def chat(home: Path, body: dict[str, Any], *, root_password: str | None, as_json: bool) -> int:
    """Ask, show where the job is, print the answer; returns the exit code."""
    console, errors = Console(), Console(stderr=True)
    began = time.monotonic()
    spinner = errors.status("asking") if errors.is_terminal else nullcontext()
    try:
        with AssistantClient(home, os.environ, root_password=root_password) as client, spinner as shown:

            def on_stage(stage: str) -> None:
                if shown is not None:
                    shown.update(f"{STAGES.get(stage, stage)} · {time.monotonic() - began:.0f} s")

            def on_wait(left: int, of: int) -> None:
                if shown is not None:
                    shown.update(f"rate limit: {left} s")
                elif left == of:  # one line for whoever reads a log
                    errors.print(f"rate limit: waiting {of} s", highlight=False)

            answer = client.ask(body, on_stage=on_stage, on_wait=on_wait)
    except ClientError as error:
        errors.print(str(error), markup=False, highlight=False)
        return 1
    if as_json:
        print(json.dumps(answer, ensure_ascii=False, indent=1))  # noqa: T201 that is the command's result
        return 0
    refused = answer.get("status") == "refused"
    text = answer["answer"] if refused else answer["result"]["text"]
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    if refused:
        errors.print(f"(refused: {answer['reason']})", markup=False, highlight=False)
    elif errors.is_terminal:
        tokens = (answer.get("usage") or {}).get("completion_tokens")
        errors.print(f"[dim]{answer['model']} · {tokens} tokens · {time.monotonic() - began:.1f} s[/]")
    return 2 if refused else 0


def jobs(home: Path, *, root_password: str | None, limit: int, as_json: bool) -> int:
    """List the newest jobs; returns the exit code."""
    try:
        with AssistantClient(home, os.environ, root_password=root_password) as client:
            items = client.jobs(limit)
    except ClientError as error:
        Console(stderr=True).print(str(error), markup=False, highlight=False)
        return 1
    if as_json:
        print(json.dumps(items, ensure_ascii=False, indent=1))  # noqa: T201 as above
        return 0
    table = Table()
    table.add_column("job", no_wrap=True)  # to be pasted
    for column in ("accepted", "status", "what came of it"):
        table.add_column(column)
    for item in items:
        result, failure = item.get("result") or {}, item.get("error") or {}
        what = (
            result.get("result", {}).get("text") or result.get("reason") or failure.get("code") or item.get("stage", "")
        )
        table.add_row(item["job_id"], item["accepted_at"][:19], item["status"], " ".join(what.split())[:60])
    Console().print(table)
    return 0


def cancel(home: Path, job_id: UUID) -> int:
    """Cancel a job and say how it stands; returns the exit code."""
    try:
        with AssistantClient(home, os.environ) as client:
            status = client.cancel(job_id)
    except ClientError as error:
        Console(stderr=True).print(str(error), markup=False, highlight=False)
        return 1
    print(status)  # noqa: T201 that is the command's result
    return 0


def workers(home: Path, *, as_json: bool) -> int:
    """List the workers; returns the exit code."""
    try:
        with AssistantClient(home, os.environ) as client:
            items = client.workers()
    except ClientError as error:
        Console(stderr=True).print(str(error), markup=False, highlight=False)
        return 1
    if as_json:
        print(json.dumps(items, ensure_ascii=False, indent=1))  # noqa: T201 as above
        return 0
    table = Table()
    table.add_column("worker", no_wrap=True)
    for column in ("heard of", "roles", "partitions", "in hand", "waiting", "done/min", "providers", "http"):
        table.add_column(column)
    for item in items:
        loads = item["stages"]
        sums = [sum(load[name] for load in loads) for name in ("in_flight", "lag", "finished_last_minute")]
        table.add_row(
            item["worker"], f"{item['age_s']:.0f} s ago" + ("" if item["alive"] else ", gone"),
            ", ".join(item["roles"]), str(sum(len(numbers) for numbers in item["partitions"].values())),
            *map(str, sums), ", ".join(offer["name"] for offer in item["providers"]), item["http"] or "",
        )  # fmt: skip
    Console().print(table)
    return 0
