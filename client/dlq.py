"""`assistant dlq list | show | redrive`, as people see them."""

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from client.api import AssistantClient, ClientError

MAX_CALLS = 1_000  # of up to 1,000 dead letters each
PAGE = 100


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters: all that is given must fit."""

    job: str | None = None
    code: str | None = None
    stage: str | None = None

    def fields(self) -> dict[str, Any]:
        """As the API names them."""
        fields = {"job_id": self.job, "code": self.code, "stage": self.stage}
        return {name: value for name, value in fields.items() if value is not None}


def list_letters(home: Path, wanted: Wanted, *, limit: int, as_json: bool) -> int:
    """List the newest; returns the exit code."""
    try:
        with AssistantClient(home, os.environ) as client:
            items = client.dead_letters({**wanted.fields(), "limit": limit})
    except ClientError as error:
        return _failed(error)
    if as_json:
        _print_json(items)
        return 0
    if not items:
        Console(stderr=True).print("there is no such dead letter")
        return 0
    table = Table()
    table.add_column("job", no_wrap=True)  # to be pasted
    for column in ("at", "stage", "code", "why", "redriven"):
        table.add_column(column)
    for item in items:
        redriven = f"as run {item['redriven_run']}" if "redriven_run" in item else ""
        job = item.get("job_id") or f"(none: {item['partition']}/{item['offset']})"
        table.add_row(job, item["at"][:19], item["stage"], item["code"], item["reason"][:100], redriven)
    Console().print(table)
    return 0


def show(home: Path, job_id: str) -> int:
    """Show a job's dead letters, newest first; returns the exit code."""
    try:
        with AssistantClient(home, os.environ) as client:
            items = client.dead_letters({"job_id": job_id, "limit": PAGE})
            letters = [client.dead_letter(item["partition"], item["offset"]) for item in items]
    except ClientError as error:
        return _failed(error)
    if not letters:
        return _failed(f"the job {job_id} has no dead letter")
    _print_json(letters)
    return 0


def redrive(home: Path, wanted: Wanted, *, as_json: bool) -> int:
    """Redrive all that fit, call after call; returns the exit code: 1 where not all was gone through."""
    code = 0
    redriven: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    body = wanted.fields()
    try:
        with AssistantClient(home, os.environ) as client:
            for _ in range(MAX_CALLS):
                reply = client.redrive(body)
                redriven += reply["redriven"]
                skipped += reply["skipped"]
                if reply["next"] is None:
                    break
                body = {**wanted.fields(), "cursor": reply["next"]}
    except ClientError as error:
        if not redriven:
            return _failed(error)
        code = _failed(f"stopped early: {error}")
    if as_json:
        _print_json({"redriven": redriven, "skipped": skipped})
    else:
        _tell(redriven, skipped)
    return code


def _tell(redriven: list[dict[str, Any]], skipped: list[dict[str, Any]]) -> None:
    console = Console()
    if not redriven and not skipped:
        console.print("there is no such dead letter")
        return
    if len(redriven) == 1:
        told = f"the job {redriven[0]['job_id']} runs again, as run {redriven[0]['run']}"
    else:
        told = f"{len(redriven)} jobs run again"
    console.print(f"{told}; {len(skipped)} skipped", highlight=False)
    for reason, count in Counter(letter["reason"] for letter in skipped).most_common(20):
        console.print(f"  {count} × {reason}", markup=False, highlight=False)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))  # noqa: T201 that is the command's result


def _failed(error: object) -> int:
    Console(stderr=True).print(str(error), markup=False, highlight=False)
    return 1
