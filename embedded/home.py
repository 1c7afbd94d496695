"""The folder that holds all data of an embedded deployment, and what is known of the one that runs there."""

import contextlib
import json
import os
import secrets
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil


@dataclass
class PartState:
    """A part for people: `state` is waiting, fetching, starting, ready, restarting, stopping."""

    name: str
    state: str = "waiting"
    note: str = ""
    pid: int | None = None
    http: str | None = None
    restarts: int = 0


@dataclass
class Status:
    """What runs. `error`: why it ended."""

    pid: int
    started_at: float
    ready: bool = False
    ingress: str | None = None
    kafka: str | None = None
    postgres: str | None = None
    error: str | None = None
    parts: list[PartState] = field(default_factory=list)


class Home:
    """`ASSISTANT_HOME`; kept over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.logs, self.run, self.secrets = self.folder / "logs", self.folder / "run", self.folder / "secrets"
        self.lock_file, self.status_file = self.run / "lock", self.run / "status.json"
        self._told_file = self.secrets / "root_usr_pass.told"

    def make(self) -> None:
        """Its folders; those with secrets for nobody else."""
        for folder in (self.folder, self.logs, self.run, self.secrets):
            folder.mkdir(parents=True, exist_ok=True)
        self.secrets.chmod(0o700)
        self.run.chmod(0o700)  # status.json holds the database's password

    def secret(self, name: str) -> str:
        """A secret that is invented once and kept, mode 600."""
        path = self.secrets / name
        if path.exists() and not path.read_text().strip():
            path.unlink()  # an empty file is no secret, whoever left it
        if not path.exists():
            # Whole or not at all: a kill half way must not leave an empty secret, nor two starts a secret each.
            descriptor, draft = tempfile.mkstemp(dir=self.secrets)
            try:
                with os.fdopen(descriptor, "w") as file:
                    file.write(secrets.token_urlsafe(48 if "key" in name else 15))
                with contextlib.suppress(FileExistsError):
                    os.link(draft, path)
            finally:
                os.unlink(draft)
        return path.read_text().strip()

    @property
    def password_was_told(self) -> bool:
        """The first admin's password was shown to somebody."""
        return self._told_file.exists()

    def note_password_told(self) -> None:
        """Not to be shown again."""
        self._told_file.touch()

    def write_status(self, status: Status) -> None:
        """Whole or not at all: others read it at any time."""
        _write_whole(self.status_file, json.dumps(asdict(status)))

    def read_status(self) -> Status | None:
        """What was written last, whether or not it still runs."""
        try:
            found: dict[str, Any] = json.loads(self.status_file.read_text())
            parts = [PartState(**part) for part in found.pop("parts")]
            return Status(**found, parts=parts)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def supervisor(self) -> psutil.Process | None:
        """The supervisor that runs here; never another process that has got its pid since."""
        status = self.read_status()
        if status is None:
            return None
        try:
            process = psutil.Process(status.pid)
            if abs(process.create_time() - status.started_at) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except psutil.Error:
            pass
        return None


def _write_whole(path: Path, text: str) -> None:
    """For nobody else to read, and never half there: a kill in between leaves a draft."""
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
