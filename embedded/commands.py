"""`assistant up`, `down` and `status`, as people see them."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from embedded.child import remove_tree
from embedded.errors import EmbeddedError
from embedded.home import Home, Status
from embedded.postgres import reachable_home
from embedded.supervisor import ROOT, Supervisor
from settings import Settings

STARTED_WITHIN_S = 900.0  # the first time, parts are fetched
DOWN_WITHIN_S = 90.0
STYLES = {"ready": "green", "fetching": "yellow", "starting": "yellow", "restarting": "red", "stopping": "yellow"}


class Progress:
    """Shows what is being started: a table that changes on a terminal, lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console, self._began = console, time.monotonic()
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        self._said: dict[str, str] = {}

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, status: Status) -> None:
        """The status as it is now."""
        if self._live:
            self._live.update(_parts_table(status, time.monotonic() - self._began))
            return
        for part in status.parts:
            line = f"{part.name}: {part.state}" + (f" ({part.note})" if part.note else "")
            if self._said.get(part.name) != line and part.state != "waiting":
                self._said[part.name] = line
                self._console.print(f"{time.monotonic() - self._began:5.1f} s  {line}", highlight=False, markup=False)


def up(settings: Settings, *, detach: bool, greet: bool = True) -> int:
    """Start everything; returns the exit code, with `detach` as soon as all is ready.

    `greet`: say how to go on once it is; not where another process does, and this one writes to a log.
    """
    console, home = Console(), Home(settings.assistant_home)
    if home.supervisor() is not None:
        console.print("it runs already")
        return status(settings, as_json=False)
    home.make()
    return _detached(settings, console, home) if detach else _in_foreground(settings, console, greet=greet)


def _in_foreground(settings: Settings, console: Console, *, greet: bool) -> int:
    greeted = not greet
    with Progress(console) as progress:

        def changed(status: Status) -> None:
            nonlocal greeted
            progress.show(status)
            if status.ready and not greeted:
                greeted = True
                progress.__exit__()
                _greet(console, settings, status)

        async def run() -> None:
            await Supervisor(settings, changed=changed).run()

        try:
            asyncio.run(run())
        except EmbeddedError as error:
            return _failed(console, str(error))
    return 0


def _detached(settings: Settings, console: Console, home: Home) -> int:
    home.status_file.unlink(missing_ok=True)
    with (home.logs / "supervisor.log").open("ab") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "cli", "up", "--no-greet"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + STARTED_WITHIN_S
    with Progress(console) as progress:
        while time.monotonic() < deadline:
            status = home.read_status()
            if status is not None:
                progress.show(status)
                if status.ready:
                    progress.__exit__()
                    _greet(console, settings, status)
                    return 0
            if daemon.poll() is not None:
                break
            time.sleep(0.05)
    reason = (status.error if status else None) or _tail(home)
    daemon.terminate()
    return _failed(console, reason)


def _failed(console: Console, reason: str) -> int:
    console.print(f"[red]failed:[/] {escape(reason)}", highlight=False)  # a reason may hold brackets of its own
    return 1


def _tail(home: Home) -> str:
    return "\n".join((home.logs / "supervisor.log").read_text(errors="replace").splitlines()[-15:])


def down(settings: Settings, *, delete_data: bool) -> int:
    """Stop everything, drained; with `delete_data` nothing is left of it."""
    console, home = Console(), Home(settings.assistant_home)
    supervisor = home.supervisor()
    if supervisor is None:
        console.print("nothing is running here")
    else:
        supervisor.terminate()
        try:
            supervisor.wait(DOWN_WITHIN_S)
        except psutil.TimeoutExpired:
            supervisor.kill()  # its children go with it
        console.print("stopped; the data is kept" if not delete_data else "stopped")
    if delete_data:
        outside = reachable_home(home.folder / "postgres")
        remove_tree(home.folder)
        remove_tree(outside)
        console.print(f"{home.folder} is gone")
    return 0


def status(settings: Settings, *, as_json: bool) -> int:
    """Show what runs; exit code 1 where not all of it is ready."""
    home = Home(settings.assistant_home)
    found = home.read_status() if home.supervisor() is not None else None
    if as_json:
        print(json.dumps(as_public(found), indent=1))  # noqa: T201 that is the command's result
    elif found is None:
        Console().print("nothing is running here: start it with `make up`", highlight=False)
    else:
        Console().print(_roster(found))
    return 0 if found is not None and found.ready else 1


def as_public(found: Status | None) -> dict[str, Any]:
    """`assistant status --json` (CONTRACT: names that scripts rely on)."""
    if found is None:
        return {"ready": False, "ingress": None, "kafka": None, "postgres": None, "processes": []}
    processes = [
        {"name": part.name, "pid": part.pid, "http": part.http, "restarts": part.restarts, "state": part.state}
        for part in found.parts
    ]
    for process in processes:
        if process["http"] is None:
            del process["http"]
    return {
        "ready": found.ready, "ingress": found.ingress, "kafka": found.kafka, "postgres": found.postgres,
        "processes": processes,
    }  # fmt: skip


def _parts_table(status: Status, seconds: float) -> Table:
    table = Table.grid(padding=(0, 2))
    for part in status.parts:
        table.add_row(part.name, f"[{STYLES.get(part.state, 'dim')}]{part.state}[/]", part.note)
    table.add_row("", f"[dim]{seconds:.0f} s[/]", "")
    return table


def _roster(status: Status) -> Table:
    table = Table(title="ready" if status.ready else "not ready", title_justify="left")
    for column in ("process", "state", "pid", "address", "restarts"):
        table.add_column(column)
    addresses = {"kafka": status.kafka, "postgres": "see: assistant status --json"}
    for part in status.parts:
        address = part.http or addresses.get(part.name) or ""
        table.add_row(part.name, part.state, str(part.pid or ""), address, str(part.restarts))
    return table


def _greet(console: Console, settings: Settings, status: Status) -> None:
    home = Home(settings.assistant_home)
    console.print(_roster(status))
    kept = home.secrets / "root_usr_pass"
    if settings.root_usr_pass is None and not home.password_was_told:
        console.print(f"The admin is [b]root[/], the password [b]{home.secret('root_usr_pass')}[/]", highlight=False)
        console.print(f"(shown this once; it is kept in {escape(str(kept))})", highlight=False)
        home.note_password_told()
    login = '{\\"user_id\\": \\"root\\", \\"password\\": \\"\'$PASSWORD\'\\"}'
    lines = [
        "Paste one of these:",
        '  .venv/bin/assistant chat "Why is the sky blue?"',
        "",
        f"  PASSWORD={_password_in_shell(settings, kept)}",
        f"  TOKEN=$(curl -s {status.ingress}/auth/login -H 'content-type: application/json' \\",
        f"    -d '{login}' \\".replace('\\"', '"'),
        '    | sed \'s/.*access_token":"\\([^"]*\\).*/\\1/\')',
        f"  curl -s {status.ingress}/chat/ -H \"Authorization: Bearer $TOKEN\" -H 'content-type: application/json' \\",
        """    -d '{"prompt": "Why is the sky blue?"}'""",
        "",
        f"  {status.ingress}/docs   (press Authorize and log in)",
        "Stop it with: make down",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _password_in_shell(settings: Settings, kept: Path) -> str:
    """What a shell finds the admin's password by; the words themselves are not shown."""
    if settings.root_usr_pass is None:
        return f"$(cat {shlex.quote(str(kept))})"
    if os.environ.get("ROOT_USR_PASS"):
        return "$ROOT_USR_PASS"
    return r"""$(sed -n "s/^ROOT_USR_PASS=[\"']\{0,1\}\([^\"']*\).*/\1/p" .env)"""
