"""The supervisor's vectors and embeddings, without Kafka and Postgres: these are named, and never reached."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from embedded import supervisor
from embedded.errors import EmbeddedError
from embedded.home import Home, PartState, Status
from settings import ROLES, Settings
from tests.vectors.conftest import store
from vectors.opening import open_server


class Supervisor(supervisor.Supervisor):
    """Stops where it would set up the database, and looks at what runs by then."""

    environment: dict[str, str]
    seen: list[dict[str, Any]]

    async def _set_up(self, environment: dict[str, str]) -> None:
        self.environment, self.seen = environment, []
        names = {state.name for state in self._status.parts} & {"vectors", "embeddings"}
        await self._watch_until(lambda: self._are_ready(*names), within_s=60)
        self._look()
        if "vectors" in names:
            address, key = environment["QDRANT_URL"], environment["QDRANT_API_KEY"]
            vectors = open_server(address, api_key=key, cacert=None)
            await store(vectors, "alice", "one", "two")
            for name in names:
                os.kill(self.seen[0][name].pid, signal.SIGKILL)
            await self._watch_until(
                lambda: all(s.restarts == 1 for s in self._status.parts if s.name in names) and self._are_ready(*names),
                within_s=60,
            )
            assert await vectors.count("alice") == 2
            await vectors.close()
        self._look()
        raise EmbeddedError("seen enough")

    def _look(self) -> None:
        from copy import copy

        self.seen.append({state.name: copy(state) for state in self._status.parts})


def run(home: Path, **given: Any) -> Supervisor:
    elsewhere: dict[str, Any] = {
        "kafka_bootstrap_servers": "127.0.0.1:9", "database_url": "postgresql://a:b@127.0.0.1:9/x",
        "local_base_url": "http://127.0.0.1:9/v1", "local_speech_url": "http://127.0.0.1:9",
        "allowed_providers": ("local",), "ingress_port": 0,
    }  # fmt: skip
    made = Supervisor(Settings(_env_file=None, assistant_home=home, **(elsewhere | given)))
    with pytest.raises(EmbeddedError, match="seen enough"):
        asyncio.run(made.run())
    return made


def test_vectors_and_embeddings_come_back_on_their_ports_with_their_data(tmp_path: Path) -> None:
    made = run(tmp_path)
    assert list(made.seen[0]) == [
        "vectors",
        "embeddings",
        "ingress",
        *(f"worker-{name}" for name in supervisor.WORKERS),
    ]
    before, after = made.seen
    for name in ("vectors", "embeddings"):
        assert before[name].http == after[name].http
        assert (before[name].restarts, after[name].restarts) == (0, 1)
    assert made.environment["QDRANT_URL"] == before["vectors"].http
    assert made.environment["LOCAL_EMBEDDING_URL"] == f"{before['embeddings'].http}/v1"
    assert made.environment["QDRANT_API_KEY"] == (tmp_path / "secrets" / "qdrant_api_key").read_text()


def test_every_role_has_its_worker() -> None:
    assert sorted(role for roles in supervisor.WORKERS.values() for role in roles) == sorted(ROLES)


def test_what_is_named_is_not_started(tmp_path: Path) -> None:
    made = run(tmp_path, qdrant_url="http://127.0.0.1:9", local_embedding_url="http://127.0.0.1:9/v1")
    assert not {"vectors", "embeddings"} & set(made.seen[0])
    assert not {"QDRANT_URL", "LOCAL_EMBEDDING_URL"} & (made.environment.keys() - os.environ.keys())
    without_local = run(tmp_path / "other", qdrant_url="http://127.0.0.1:9", allowed_providers=("openai",))
    assert "embeddings" not in without_local.seen[0]


async def test_a_machine_that_is_too_busy_to_set_up_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Home(tmp_path).make()
    monkeypatch.setattr(supervisor, "SETUP_TIMEOUT_S", 0.001)
    settings = Settings(_env_file=None, assistant_home=tmp_path, kafka_bootstrap_servers="127.0.0.1:9")
    with pytest.raises(EmbeddedError, match=r"last said: nothing.*run `assistant up` again"):
        await supervisor.Supervisor(settings)._set_up({})


def program(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """What the supervisor sets up with."""
    (folder / "cli.py").write_text(text)
    monkeypatch.setattr(supervisor, "ROOT", folder)


async def test_each_step_of_setting_up_is_told_and_so_is_why_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Home(tmp_path).make()
    program(monkeypatch, tmp_path, "print('the database is new', flush=True)\nraise SystemExit('no topics')")
    notes: list[str] = []
    settings = Settings(_env_file=None, assistant_home=tmp_path, kafka_bootstrap_servers="127.0.0.1:9")
    made = supervisor.Supervisor(settings, changed=lambda status: notes.extend(part.note for part in status.parts))
    made._status.parts = [PartState("ingress")]
    with pytest.raises(EmbeddedError, match="could not be set up: the database is new\nno topics"):
        await made._set_up(dict(os.environ))
    assert "setting up: the database is new" in notes


async def test_whoever_stops_while_it_is_set_up_need_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Home(tmp_path).make()
    program(monkeypatch, tmp_path, "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)")
    settings = Settings(_env_file=None, assistant_home=tmp_path, kafka_bootstrap_servers="127.0.0.1:9")
    notes: list[str] = []

    def changed(status: Status) -> None:
        notes.extend(part.note for part in status.parts)
        if notes[-1].split()[-1].isdigit():
            made._stop.set()

    made = supervisor.Supervisor(settings, changed=changed)
    made._status.parts = [PartState("ingress")]
    async with asyncio.timeout(60):
        await made._set_up(dict(os.environ))
    assert not psutil.pid_exists(int(notes[-1].split()[-1]))
