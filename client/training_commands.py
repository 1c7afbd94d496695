"""`assistant train` and `assistant adapters`, as typer takes them."""

from typing import Annotated

import typer

from settings import Settings

adapters = typer.Typer(invoke_without_command=True)


def train(
    name: Annotated[str, typer.Argument(help="What you call it from then on")],
    epochs: Annotated[int | None, typer.Option(min=1, max=20, help="How often all examples are gone through")] = None,
    lr: Annotated[float | None, typer.Option(min=1e-6, max=1e-2, help="How far each step goes")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, max=32, help="Examples of one step")] = None,
    provider: Annotated[str | None, typer.Option(help="Whose model learns; else the first that can")] = None,
    timeout: Annotated[float | None, typer.Option(min=1, max=86_400, help="Seconds that it may take")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole adapter, with its loss curve")] = False,
) -> None:
    """Train an adapter with your examples (POST /instruction/smart/add), and show what it has learnt."""
    from client import training

    given = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "provider": provider, "timeout": timeout}
    body = {"name": name, **{field: value for field, value in given.items() if value is not None}}
    settings = Settings()
    raise SystemExit(
        training.train(settings.assistant_home, body, root_password=_root_password(settings), as_json=as_json)
    )


@adapters.callback()
def adapters_list(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False
) -> None:
    """List your trained adapters."""
    if context.invoked_subcommand is not None:
        return
    from client import training

    settings = Settings()
    raise SystemExit(
        training.list_adapters(settings.assistant_home, root_password=_root_password(settings), as_json=as_json)
    )


@adapters.command("delete")
def adapters_delete(name: str) -> None:
    """Delete one of your adapters; one that is being trained is not trained any further."""
    from client import training

    settings = Settings()
    raise SystemExit(training.delete_adapter(settings.assistant_home, name, root_password=_root_password(settings)))


def _root_password(settings: Settings) -> str | None:
    return settings.root_usr_pass.get_secret_value() if settings.root_usr_pass else None
