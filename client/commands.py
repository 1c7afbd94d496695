"""`assistant chat`, `assistant jobs`, `assistant cancel` and `assistant workers`, as people see them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from client.api import AssistantClient, ClientError
from client.waiting import Waiting


def chat(home: Path, body: dict[str, Any], *, root_password: str | None, as_json: bool) -> int:
    """Ask, show where the job is, print the answer; returns the exit code."""
    console, errors = Console(), Console(stderr=True)
    waiting = Waiting(errors)
    try:
        with AssistantClient(home, os.environ, root_password=root_password) as client, waiting:
            answer = client.ask(body, on_stage=waiting.on_stage, on_wait=waiting.on_wait)
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
        errors.print(f"[dim]{answer['model']} · {tokens} tokens · {waiting.seconds:.1f} s[/]")
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


def delete_jobs(home: Path, job_ids: Sequence[UUID], *, root_password: str | None) -> int:
    """Delete them; returns the exit code: 1 where one was not there, or has not ended."""
    failed, errors = False, Console(stderr=True)
    try:
        with AssistantClient(home, os.environ, root_password=root_password) as client:
            for job_id in job_ids:
                try:
                    client.send("DELETE", f"/jobs/{job_id}")
                except ClientError as error:
                    failed = True
                    errors.print(f"{job_id}: {error}", markup=False, highlight=False)
    except ClientError as error:
        errors.print(str(error), markup=False, highlight=False)
        return 1
    return 1 if failed else 0


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
