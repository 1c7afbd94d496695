"""`assistant doctor`, as people see it."""

import asyncio
import json
import logging
import os
from dataclasses import asdict
from typing import Any

from dotenv import dotenv_values
from rich.console import Console
from rich.table import Table
from rich.text import Text

from doctor.finding import Finding
from doctor.machine import machine
from doctor.origins import Origin, from_vault, origins
from doctor.services import services
from embedded.addresses import addresses
from settings import Settings

STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red", "absent": "dim"}


def doctor(settings: Settings, *, as_json: bool, vault_problem: str | None = None) -> int:
    """Look at everything; exit code 1 where something that is needed is wrong.

    `vault_problem`: why the settings are without what Vault has.
    """
    for name in ("aiokafka", "asyncio"):  # what does not answer is in the report, once
        logging.getLogger(name).setLevel(logging.CRITICAL)
    findings = [
        *machine(settings),
        *vault(settings, vault_problem),
        *asyncio.run(services(settings, addresses(settings))),
    ]
    found = origins(settings, environ=os.environ, env_file=dotenv_values(".env"), vault=from_vault(settings))
    if as_json:
        print(json.dumps(as_public(findings, found), indent=1, ensure_ascii=False))  # noqa: T201 the command's result
    else:
        _print(Console(), findings, found)
    return 1 if any(finding.state == "wrong" for finding in findings) else 0


def vault(settings: Settings, problem: str | None) -> list[Finding]:
    """Whether it gave what it has; nothing where none is named."""
    if problem is not None:
        return [Finding("vault", "wrong", f"{settings.vault_addr} gives nothing", problem)]
    if settings.vault_addr is None:
        return []
    place, count = f"{settings.vault_mount}/{settings.vault_path}", len(from_vault(settings))
    return [Finding("vault", "ok", f"{settings.vault_addr}: {count} settings of {place}")]


def as_public(findings: list[Finding], settings: list[Origin]) -> dict[str, Any]:
    """`assistant doctor --json`."""
    return {
        "ok": all(finding.state != "wrong" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "settings": [asdict(origin) for origin in settings],
    }


def _print(console: Console, findings: list[Finding], settings: list[Origin]) -> None:
    table = Table(title="parts", title_justify="left")
    for column in ("part", "state", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        state = Text(finding.state, style=STYLES[finding.state])
        table.add_row(Text(finding.part), state, Text(finding.found), Text(finding.advice))
    console.print(table)
    given = [origin for origin in settings if origin.source != "default"]
    if not given:
        console.print("every setting has its default", highlight=False)
        return
    table = Table(title="settings that are not left at their defaults", title_justify="left")
    for column in ("setting", "from", "value"):
        table.add_column(column, overflow="fold")
    for origin in given:
        table.add_row(origin.name, origin.source, Text(origin.shown))
    console.print(table)
