"""`assistant jobs ...` and `assistant cancel`: one function per command, no logic of its own."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from settings import Settings, SettingsWithoutVault

jobs = typer.Typer(invoke_without_command=True)


@jobs.callback()
def jobs_list(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
) -> None:
    """List your newest jobs, export all of them, or delete some."""
    from client import commands

    if context.invoked_subcommand is not None:
        return
    home, password = _home()
    raise SystemExit(commands.jobs(home, root_password=password, limit=limit, as_json=as_json))


@jobs.command("export")
def jobs_export(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; standard output otherwise")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on behind the file's last job")] = False,
    begin: Annotated[str | None, typer.Option("--from", help="Accepted then or later, ISO 8601 with zone")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Accepted before")] = None,
    provider: Annotated[str | None, typer.Option(help="Only what it answered")] = None,
    status: Annotated[str | None, typer.Option(help="pending, completed or error")] = None,
    user: Annotated[str | None, typer.Option(help="Whose, for admins; they get everybody's otherwise")] = None,
    cursor: Annotated[str | None, typer.Option(help="accepted_at/job_id of the last job that you have")] = None,
) -> None:
    """Write your jobs with their answers as JSON Lines, the oldest first."""
    from client.export import export

    asked = {"from": begin, "to": end, "provider": provider, "status": status, "user_id": user, "cursor": cursor}
    query = {name: value for name, value in asked.items() if value is not None}
    home, password = _home()
    raise SystemExit(export(home, query, output=output, resume=resume, root_password=password))


@jobs.command("delete")
def jobs_delete(job_ids: list[UUID]) -> None:
    """Delete jobs that have ended, with what was asked and answered; cancel those that have not before."""
    from client import commands

    home, password = _home()
    raise SystemExit(commands.delete_jobs(home, job_ids, root_password=password))


def cancel(job_id: UUID) -> None:
    """Cancel a job, also one that a provider is at work on."""
    from client import commands

    raise SystemExit(commands.cancel(SettingsWithoutVault().assistant_home, job_id))


def _home() -> tuple[Path, str | None]:
    settings = Settings()
    password = settings.root_usr_pass.get_secret_value() if settings.root_usr_pass else None
    return settings.assistant_home, password
