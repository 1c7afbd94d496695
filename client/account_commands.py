"""`assistant users ...` and `assistant keys ...`: one function per command, no logic of its own."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from settings import Settings

if TYPE_CHECKING:
    from client.accounts import Accounts

users = typer.Typer(no_args_is_help=True, help="Users, for admins.")
keys = typer.Typer(no_args_is_help=True, help="Your API keys, for programs.")

AsJson = Annotated[bool, typer.Option("--json", help="For programs")]
FromInput = Annotated[bool, typer.Option("--password-stdin", help="Read it from standard input, do not ask")]


def _accounts(*, as_json: bool = False) -> "Accounts":
    from client.accounts import Accounts

    settings = Settings()
    password = settings.root_usr_pass.get_secret_value() if settings.root_usr_pass else None
    return Accounts(settings.assistant_home, root_password=password, as_json=as_json)


def _new_password(*, from_input: bool) -> str:
    """Never an argument: those are seen by everybody on the machine, and kept by the shell."""
    if from_input:
        return sys.stdin.readline().rstrip("\n")
    password: str = typer.prompt("New password", hide_input=True, confirmation_prompt=True)
    return password


@users.command("list")
def users_list(as_json: AsJson = False) -> None:
    """List everybody, by name."""
    raise SystemExit(_accounts(as_json=as_json).list_users())


@users.command("add")
def users_add(
    user_id: str, admin: Annotated[bool, typer.Option("--admin")] = False, password_stdin: FromInput = False
) -> None:
    """Create a user; asks for the password."""
    raise SystemExit(_accounts().add(user_id, _new_password(from_input=password_stdin), is_admin=admin))


@users.command("disable")
def users_disable(user_id: str) -> None:
    """Shut a user out: tokens, keys, streams and jobs end within 5 s."""
    raise SystemExit(_accounts().change(user_id, {"disabled": True}, f"{user_id} is disabled"))


@users.command("enable")
def users_enable(user_id: str) -> None:
    """Let a user in again."""
    raise SystemExit(_accounts().change(user_id, {"disabled": False}, f"{user_id} is enabled: they log in again"))


@users.command("password")
def users_password(user_id: str, password_stdin: FromInput = False) -> None:
    """Set a user's password; whoever is logged in as them is logged out."""
    password = _new_password(from_input=password_stdin)
    raise SystemExit(_accounts().change(user_id, {"password": password}, f"{user_id} has a new password"))


@users.command("role")
def users_role(user_id: str, role: Annotated[str, typer.Argument(help="admin or user")]) -> None:
    """Make a user an admin, or an admin a user."""
    raise SystemExit(_accounts().change(user_id, {"role": role}, f"{user_id} is now: {role}"))


@users.command("delete")
def users_delete(user_id: str, yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False) -> None:
    """Delete a user for ever; the name is not given again."""
    if not yes:
        typer.confirm(f"Delete {user_id} for ever?", abort=True)
    raise SystemExit(_accounts().delete(user_id))


@keys.command("list")
def keys_list(
    user: Annotated[str | None, typer.Option("--user", help="Whose, for admins")] = None, as_json: AsJson = False
) -> None:
    """List API keys, the newest first."""
    raise SystemExit(_accounts(as_json=as_json).list_keys(user))


@keys.command("add")
def keys_add(
    name: str,
    scope: Annotated[list[str] | None, typer.Option("--scope", help="read, jobs, admin, users; repeat")] = None,
    expires_at: Annotated[str | None, typer.Option("--expires", help="ISO 8601 with zone")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key, and print it: it is not shown again."""
    raise SystemExit(_accounts(as_json=as_json).add_key(name, scope or (), expires_at))


@keys.command("delete")
def keys_delete(key_id: str) -> None:
    """Delete an API key, by its id."""
    raise SystemExit(_accounts().delete_key(key_id))
