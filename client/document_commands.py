"""`assistant ingest` and `assistant documents ...`: one function per command, no logic of its own."""

import sys
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from settings import Settings

documents = typer.Typer(invoke_without_command=True)
AsJson = Annotated[bool, typer.Option("--json", help="For programs")]


def ingest(
    files: Annotated[list[Path], typer.Argument(help="PDF, DOCX, PPTX, EPUB, HTML, Markdown, text")],
    source: Annotated[str | None, typer.Option(help="What it is called; the file's own name otherwise")] = None,
    provider: Annotated[str | None, typer.Option(help="Who makes the vectors; the default otherwise")] = None,
    as_json: AsJson = False,
) -> None:
    """Ingest files, so that they can be found and quoted; shows how far each is. Ctrl-C cancels."""
    from client import documents as commands

    if source is not None and len(files) > 1:
        print("--source is for a single file", file=sys.stderr)  # noqa: T201 to people
        raise SystemExit(2)
    home, password = _home()
    wanted = commands.Wanted(files, source, provider, as_json)
    raise SystemExit(commands.ingest(home, wanted, root_password=password))


@documents.callback()
def documents_list(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    as_json: AsJson = False,
) -> None:
    """List your newest documents, or delete some."""
    from client import documents as commands

    if context.invoked_subcommand is not None:
        return
    home, password = _home()
    raise SystemExit(commands.list_documents(home, root_password=password, limit=limit, as_json=as_json))


@documents.command("delete")
def documents_delete(document_ids: list[UUID]) -> None:
    """Delete documents, with all that is stored of them; also while they are being ingested."""
    from client import documents as commands

    home, password = _home()
    raise SystemExit(commands.delete_documents(home, document_ids, root_password=password))


def _home() -> tuple[Path, str | None]:
    settings = Settings()
    password = settings.root_usr_pass.get_secret_value() if settings.root_usr_pass else None
    return settings.assistant_home, password
