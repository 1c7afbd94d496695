"""What `assistant up` says: the password until somebody has read it, lines to paste, and why it failed."""

import io
import os
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr
from rich.console import Console

from embedded import commands
from embedded.errors import EmbeddedError
from embedded.home import Home, PartState, Status
from settings import Settings

PASSWORD = "correct horse"


class NoSupervisor:
    """Fails as the real one does, with a reason that looks like markup."""

    def __init__(self, settings: Settings, **_: object) -> None:
        pass

    async def run(self) -> None:
        raise EmbeddedError("no such thing: [/kafka] of [red")


def settings(home: Path, **more: object) -> Settings:
    return Settings(_env_file=None, assistant_home=home, **more)  # type: ignore[arg-type]  # of any field


def greeting(found: Settings) -> str:
    console = Console(file=io.StringIO(), record=True, width=200)
    status = Status(1, 1.0, ready=True, ingress="http://127.0.0.1:1", parts=[PartState("kafka", "ready")])
    commands._greet(console, found, status)
    return console.export_text()


def pasted(greeted: str, folder: Path, **environ: str) -> str:
    """What a shell makes of the line with the password."""
    (line,) = [line.strip() for line in greeted.splitlines() if line.strip().startswith("PASSWORD=")]
    clean = {name: value for name, value in os.environ.items() if name != "ROOT_USR_PASS"}
    command = ["bash", "-c", f'{line}; printf %s "$PASSWORD"']
    return subprocess.run(command, env=clean | environ, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_password_is_shown_until_it_was_and_then_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path / "a home")
    home.make()
    found = settings(home.folder)
    password = home.secret("root_usr_pass")  # as the set-up of a start that then fails invents it
    monkeypatch.setattr(commands, "Supervisor", NoSupervisor)
    assert commands.up(found, detach=False) == 1
    assert password not in capsys.readouterr().out
    first = greeting(found)
    assert f"The admin is root, the password {password}" in first
    assert pasted(first, tmp_path) == password
    again = greeting(found)
    assert password not in again
    assert pasted(again, tmp_path) == password


@pytest.mark.parametrize("line", ["ROOT_USR_PASS={}", 'ROOT_USR_PASS="{}"', "ROOT_USR_PASS='{}'"])
def test_a_password_of_ones_own_is_pasted_from_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    Home(tmp_path / "home").make()
    monkeypatch.delenv("ROOT_USR_PASS", raising=False)
    (tmp_path / ".env").write_text("# mine\n" + line.format(PASSWORD) + "\nINGRESS_PORT=1\n")
    in_file = greeting(settings(tmp_path / "home", root_usr_pass=SecretStr(PASSWORD)))
    assert PASSWORD not in in_file
    assert pasted(in_file, tmp_path) == PASSWORD
    monkeypatch.setenv("ROOT_USR_PASS", "of the environment")
    in_environment = greeting(settings(tmp_path / "home", root_usr_pass=SecretStr("of the environment")))
    assert pasted(in_environment, tmp_path, ROOT_USR_PASS="of the environment") == "of the environment"


def test_a_reason_is_shown_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "Supervisor", NoSupervisor)
    assert commands.up(settings(tmp_path), detach=False) == 1
    assert "failed: no such thing: [/kafka] of [red" in capsys.readouterr().out


def test_a_secret_whose_writer_was_killed_half_way_is_invented_anew(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    real, written = os.link, []

    def killed(source: str, target: str) -> None:
        written.append(target)
        raise KeyboardInterrupt

    os.link = killed  # type: ignore[assignment]
    try:
        with pytest.raises(KeyboardInterrupt):
            home.secret("jwt_secret_key")
    finally:
        os.link = real
    assert written
    assert list(home.secrets.iterdir()) == []
    assert len(home.secret("jwt_secret_key")) >= 32
