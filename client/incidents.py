"""`assistant incidents list | export | lift`, as people see them."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from client.api import AssistantClient, ClientError
from client.export import whole_lines


def list_incidents(home: Path, query: dict[str, str], *, limit: int, as_json: bool) -> int:
    """List the newest; returns the exit code."""
    try:
        with AssistantClient(home, os.environ) as client:
            items = client.incidents({**query, "limit": limit})
    except ClientError as error:
        return _failed(error)
    if as_json:
        print(json.dumps(items, ensure_ascii=False, indent=1))  # noqa: T201 that is the command's result
        return 0
    if not items:
        Console(stderr=True).print("there is no such incident")
        return 0
    table = Table()
    for column in ("at", "user", "reason", "from", "job", "excerpt"):
        table.add_column(column)
    for item in items:
        where = " ".join(filter(None, (item.get("source"), item.get("address"))))
        cells = (item["at"][:19], item["user_id"], item["reason"], where, item.get("job_id", ""), item["excerpt"][:80])
        table.add_row(*map(_plain, cells))
    Console().print(table)
    return 0


def export(home: Path, query: dict[str, str], *, output: Path | None) -> int:
    """Write all that fit as JSON Lines; returns the exit code."""
    try:
        if output is not None and output.exists():
            return _failed(f"{output} is there already")
        with (
            AssistantClient(home, os.environ) as client,
            output.open("wb") if output is not None else nullcontext(sys.stdout.buffer) as file,
        ):
            for line in whole_lines(client.stream("/admin/incidents/export", query)):
                file.write(line)
            file.flush()
    except (ClientError, OSError) as error:
        return _failed(f"{error}; what was written until then is good, but it is not all")
    return 0


def lift(home: Path, user_id: str) -> int:
    """End a user's quarantine; returns the exit code."""
    try:
        with AssistantClient(home, os.environ) as client:
            client.lift_quarantine(user_id)
    except ClientError as error:
        return _failed(error)
    Console().print(f"{user_id} is in no quarantine", markup=False, highlight=False)
    return 0


def _plain(text: Any) -> str:
    """What somebody wrote who means harm: no markup, and nothing that moves a terminal's cursor."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in str(text))
    return shown.replace("[", "\\[")


def _failed(error: object) -> int:
    Console(stderr=True).print(str(error), markup=False, highlight=False)
    return 1
