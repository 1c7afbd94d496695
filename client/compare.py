"""`assistant compare FILE`: runs a grid of prompts and variants, shows how far it is, writes the report."""

import json
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from rich.console import Console
from rich.table import Table

from client.api import AssistantClient, ClientError, CutError

LOOK_EVERY_S = 1.0
MAX_SILENT = 30  # looks in a row that were not answered
FORMATS = {".json": "json", ".csv": "csv", ".html": "html"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to do: run a file, or go on with one that was begun, or cancel it; and where to write its reports."""

    file: Path | None = None
    resume: UUID | None = None
    cancel: UUID | None = None
    reports: Sequence[Path] = ()
    as_json: bool = False


def compare(home: Path, wanted: Wanted, *, root_password: str | None) -> int:
    """Run it to its end; returns the exit code: 0 where every cell has an answer, 2 where not, 1 for no comparison."""
    errors = Console(stderr=True, highlight=False)
    comparison_id: UUID | None = wanted.resume
    try:
        for path in wanted.reports:
            _format_of(path)
        with AssistantClient(home, os.environ, root_password=root_password) as client:
            if wanted.cancel is not None:
                told = client.post(f"/compare/{wanted.cancel}/cancel")
                errors.print(told["status"])
                return 0
            if comparison_id is None:
                comparison_id = _begin(client, _read(wanted.file))
                errors.print(f"comparison {comparison_id}")
            view = _follow(client, comparison_id, errors)
            for path in wanted.reports:
                _write(client, comparison_id, path)
    except (ClientError, OSError) as error:
        errors.print(str(error), markup=False)
        if comparison_id is not None:
            errors.print(_hint(comparison_id), markup=False)
        return 1
    except KeyboardInterrupt:
        if comparison_id is not None:
            errors.print(_hint(comparison_id), markup=False)
        return 1
    if wanted.as_json:
        print(json.dumps(view, ensure_ascii=False, indent=1))  # noqa: T201 that is the command's result
    else:
        Console().print(_table(view))
    return 0 if view["progress"].get("completed", 0) == view["progress"]["cells"] else 2


def _hint(comparison_id: UUID) -> str:
    return f"it goes on: look again with --resume {comparison_id}, or end it with --cancel {comparison_id}"


def _read(path: Path | None) -> dict[str, Any]:
    """The body of `POST /compare`, as JSON or YAML."""
    if path is None:
        raise ClientError("name a FILE, or a comparison with --resume or --cancel")
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ClientError(f"{path} is neither JSON nor YAML ({type(error).__name__})") from None
    if not isinstance(body, dict):
        raise ClientError(f"{path} must hold prompts and variants: {{prompts: [...], variants: [{{provider: ...}}]}}")
    return body


def _begin(client: AssistantClient, body: dict[str, Any]) -> UUID:
    key = str(uuid.uuid4())  # so that a second try is no second comparison
    for last in (False, False, True):
        try:
            return UUID(client.post("/compare", body, key=key)["comparison_id"])
        except CutError:
            if last:
                raise
            time.sleep(LOOK_EVERY_S)
    raise AssertionError  # the last one has returned or raised


def _follow(client: AssistantClient, comparison_id: UUID, errors: Console) -> dict[str, Any]:
    shown, silent = "", 0
    with errors.status("comparing") as status:
        while True:
            try:
                view = client.get(f"/compare/{comparison_id}", {"cells": "false"})
            except CutError:
                silent += 1
                if silent == MAX_SILENT:
                    raise
            else:
                silent = 0
                told = _told(view)
                if errors.is_terminal:
                    status.update(told)
                elif told != shown:
                    errors.print(told, markup=False)
                shown = told
                if view["status"] in ("completed", "cancelled"):
                    return view
            time.sleep(LOOK_EVERY_S)


def _told(view: dict[str, Any]) -> str:
    counts = {name: count for name, count in view["progress"].items() if count}
    cells, again = counts.pop("cells"), counts.pop("rate_limited", 0)
    told = f"{cells} cells: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    if again:
        told += f" · refused for the rate and asked again: {again}"
    waits = view.get("waits_for")
    return f"{told} · {waits['code']}, until {waits['until'][11:19]}" if waits else told


def _write(client: AssistantClient, comparison_id: UUID, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        for chunk in client.stream(f"/compare/{comparison_id}/report", {"format": _format_of(path)}):
            file.write(chunk)
    part.replace(path)  # all of it, or as it was


def _format_of(path: Path) -> str:
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise ClientError(f"{path}: a report is a .json, .csv or .html file") from None


def _table(view: dict[str, Any]) -> Table:
    table = Table()
    for column in ("variant", "cells", "provider p50 / p95", "end to end p50 / p95", "tokens in / out", "cost"):
        table.add_column(column)
    for variant in view["variants"]:
        settings = variant.get("generation_config") or {}
        name = " ".join([variant.get("provider") or "default", *(f"{key}={value}" for key, value in settings.items())])
        cost = variant.get("cost")
        table.add_row(
            name, ", ".join(f"{count} {status}" for status, count in variant["cells"].items()),
            _pair(variant["latency_ms"]), _pair(variant["total_ms"]),
            f"{variant['usage']['prompt_tokens']} / {variant['usage']['completion_tokens']}",
            "" if cost is None else f"{cost:.6f}",
        )  # fmt: skip
    return table


def _pair(times: dict[str, float] | None) -> str:
    return f"{times['p50']:.0f} / {times['p95']:.0f} ms" if times else ""
