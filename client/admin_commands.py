"""`assistant dlq ...` and `assistant incidents ...`: one function per command, no logic of its own."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from settings import SettingsWithoutVault

dlq = typer.Typer(no_args_is_help=True, help="Dead letters: events that could never work, and once more.")
incidents = typer.Typer(no_args_is_help=True, help="Incidents: who tried what, and who is in quarantine for it.")

Job = Annotated[str | None, typer.Option("--job", help="Only of this job")]
Code = Annotated[str | None, typer.Option("--code", help="Only with this code, such as provider-http-401")]
Stage = Annotated[str | None, typer.Option("--stage", help="Only of this stage, such as generate_completion")]


@dlq.command("list")
def dlq_list(
    job: Job = None,
    code: Code = None,
    stage: Stage = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
) -> None:
    """List the newest dead letters."""
    from client import dlq as commands

    wanted = commands.Wanted(job=job, code=code, stage=stage)
    raise SystemExit(commands.list_letters(SettingsWithoutVault().assistant_home, wanted, limit=limit, as_json=as_json))


@dlq.command("show")
def dlq_show(job_id: str) -> None:
    """Show a job's dead letters with their records, as JSON."""
    from client import dlq as commands

    raise SystemExit(commands.show(SettingsWithoutVault().assistant_home, job_id))


@dlq.command("redrive")
def dlq_redrive(
    job: Job = None,
    code: Code = None,
    stage: Stage = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
) -> None:
    """Run their jobs again, from where they failed; without an option those of all dead letters."""
    from client import dlq as commands

    wanted = commands.Wanted(job=job, code=code, stage=stage)
    asks = not yes and job is None and sys.stdin.isatty()
    if asks and not typer.confirm("Run every job again whose dead letter fits?"):
        raise SystemExit(1)
    raise SystemExit(commands.redrive(SettingsWithoutVault().assistant_home, wanted, as_json=as_json))


User = Annotated[str | None, typer.Option("--user", help="Only of this user")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only of this kind of rule, such as exfiltration")]
Begin = Annotated[str | None, typer.Option("--from", help="Then or later, ISO 8601 with zone")]
End = Annotated[str | None, typer.Option("--to", help="Before")]


def _incident_query(
    user: str | None, reason: str | None, job: str | None, begin: str | None, end: str | None
) -> dict[str, str]:
    asked = {"user_id": user, "reason": reason, "job_id": job, "from": begin, "to": end}
    return {name: value for name, value in asked.items() if value is not None}


@incidents.command("list")
def incidents_list(
    user: User = None,
    reason: Reason = None,
    job: Job = None,
    begin: Begin = None,
    end: End = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
) -> None:
    """List the newest incidents."""
    from client import incidents as commands

    query = _incident_query(user, reason, job, begin, end)
    raise SystemExit(
        commands.list_incidents(SettingsWithoutVault().assistant_home, query, limit=limit, as_json=as_json)
    )


@incidents.command("export")
def incidents_export(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; standard output otherwise")] = None,
    user: User = None,
    reason: Reason = None,
    job: Job = None,
    begin: Begin = None,
    end: End = None,
) -> None:
    """Write incidents as JSON Lines, the oldest first."""
    from client import incidents as commands

    query = _incident_query(user, reason, job, begin, end)
    raise SystemExit(commands.export(SettingsWithoutVault().assistant_home, query, output=output))


@incidents.command("lift")
def incidents_lift(user_id: str) -> None:
    """End a user's quarantine: their requests are taken again at once."""
    from client import incidents as commands

    raise SystemExit(commands.lift(SettingsWithoutVault().assistant_home, user_id))
