"""What is said of each part, without any service."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from doctor import services
from doctor.heartbeats import Beat, judge
from doctor.machine import LITTLE_ROOM, NO_ROOM, machine, packages, room
from doctor.origins import origins, without_credentials
from doctor.services import processes, provider, providers, replication, secrets, topics
from embedded.addresses import Addresses, addresses
from embedded.home import Home, PartState, Status
from schemas.events import WorkerHeartbeat
from settings import ROLES, Settings
from tests.conftest import SECRET
from tests.factories import NOW
from transport.admin import Cluster, Copies

NOTHING = Addresses(kafka=None, postgres=None, running=None)
SECRETS = {
    "JWT_SECRET_KEY": SECRET, "OPENAI_API_KEY": "sk-never-shown", "DATABASE_URL": "postgresql://u:never-shown@h/d",
    "ROOT_USR_PASS": "never-shown", "DB_PASS": "never-shown", "JWT_SECRET_KEY_PREVIOUS": SECRET[::-1],
    "OPENAI_BASE_URL": "https://user:never-shown@gateway.example/v1?key=never-shown",
}  # fmt: skip


def settings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


# --- settings ---


def test_a_setting_comes_from_the_environment_else_from_the_file_else_is_a_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = settings(monkeypatch, MAX_RETRIES="7", LLM_TIMEOUT="9")
    told = origins(found, environ={"max_retries": "7"}, env_file={"MAX_RETRIES": "5", "LLM_TIMEOUT": "9"})
    by_name = {origin.name: (origin.source, origin.shown) for origin in told}
    assert by_name["MAX_RETRIES"] == ("environment", "7")
    assert by_name["LLM_TIMEOUT"] == (".env", "9.0")
    assert by_name["INGRESS_PORT"] == ("default", "8000")
    assert by_name.keys() == {name.upper() for name in Settings.model_fields}


def test_no_secret_is_ever_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    told = origins(settings(monkeypatch, **SECRETS), environ=SECRETS, env_file={})
    shown = " ".join(origin.shown for origin in told)
    assert "never-shown" not in shown
    assert SECRET not in shown
    assert SECRET[::-1] not in shown
    by_name = {origin.name: origin.shown for origin in told}
    assert by_name["JWT_SECRET_KEY"] == by_name["OPENAI_API_KEY"] == by_name["DATABASE_URL"] == "(set)"
    assert by_name["OPENAI_BASE_URL"] == "https://gateway.example/v1"


def test_a_long_value_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    told = origins(settings(monkeypatch, INSTRUCTION_REGEX="a|" * 500), environ={}, env_file={})
    assert max(len(origin.shown) for origin in told) <= 60


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://u:p@h:5432/d?password=p", "postgresql://h:5432/d"),
        ("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1"),
        ("gpt-4o-mini", "gpt-4o-mini"),
    ],
)
def test_an_address_is_shown_without_who_may(address: str, shown: str) -> None:
    assert without_credentials(address) == shown


# --- the machine ---

LOCK = """
aiokafka==0.14.0 \\
    --hash=sha256:aa
rich-click==1.9.9 \\
    --hash=sha256:bb
winloop==0.2.0 ; sys_platform == 'win32' \\
    --hash=sha256:cc
"""


@pytest.mark.parametrize(
    ("installed", "state", "found"),
    [
        ({"aiokafka": "0.14.0", "rich-click": "1.9.9"}, "ok", "2 of the versions that are locked"),
        ({"aiokafka": "0.13.0", "rich-click": "1.9.9"}, "warning", "of other versions: aiokafka 0.13.0 (locked: 0.14"),
        ({"rich-click": "1.9.9"}, "wrong", "missing: aiokafka"),
    ],
)
def test_packages_are_compared_with_the_lock_file(installed: dict[str, str], state: str, found: str) -> None:
    told = packages(LOCK, installed)
    assert told.state == state
    assert told.found.startswith(found)


@pytest.mark.parametrize(
    ("free", "state"), [(LITTLE_ROOM, "ok"), (LITTLE_ROOM - 1, "warning"), (NO_ROOM - 1, "wrong")]
)  # fmt: skip
def test_little_room_is_told_before_there_is_none(free: int, state: str) -> None:
    assert room(Path("/home"), free).state == state


def test_what_is_not_fetched_yet_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASSISTANT_CACHE", str(tmp_path))
    told = {found.part: found for found in machine(settings(monkeypatch, ASSISTANT_HOME=str(tmp_path / "no" / "home")))}
    assert told["kafka jars"].state == "absent"
    assert "fetches them" in told["kafka jars"].advice
    assert told["java"].state == "ok"
    assert told["python"].state == "ok"
    assert told["disk"].state in ("ok", "warning", "wrong")
    elsewhere = machine(settings(monkeypatch, KAFKA_BOOTSTRAP_SERVERS="h:1", LOCAL_BASE_URL="http://h/v1"))
    assert not {"java", "kafka jars", "model"} & {found.part for found in elsewhere}


# --- workers ---

KNOWING = ("retrieval", "agent", "ingestion")
WANTED = tuple(role for role in ROLES if role not in ("speech", "training"))  # which are optional


def beat(worker: str, *roles: str, ago_s: float = 1, skew_s: float = 0, stopped: bool = False) -> Beat:
    at = NOW - timedelta(seconds=ago_s)
    said = WorkerHeartbeat(worker=worker, at=at + timedelta(seconds=skew_s), roles=roles, stopped=stopped)
    return Beat(said, at)


@pytest.mark.parametrize(
    ("beats", "expected", "state", "advice"),
    [
        ([beat("a", "gate", "completion", *KNOWING), beat("b", "sink")], True, "ok", ""),
        ([beat("a", "gate", *KNOWING), beat("b", "sink")], False, "wrong", "completion"),
        ([beat("a", "gate", "completion", *KNOWING), beat("b", "sink", stopped=True)], False, "wrong", "sink"),
        ([beat("a", "gate", "completion", "sink")], True, "wrong", "retrieval,agent,ingestion"),
        ([beat("a", *ROLES, ago_s=20)], True, "wrong", ",".join(WANTED)),
        ([], False, "absent", ",".join(WANTED)),
    ],
)
def test_a_role_that_nobody_has_is_named(beats: list[Beat], expected: bool, state: str, advice: str) -> None:
    told = judge(beats, now=NOW, expected=expected)[0]
    assert told.state == state
    assert told.advice.removeprefix("start: assistant worker --roles ") == advice


def test_roles_of_documents_are_wanted_where_there_is_a_place_for_them() -> None:
    beats = [beat("a", "gate", "completion", "sink")]
    assert judge(beats, now=NOW, expected=True, knows=False)[0].state == "ok"
    assert judge(beats, now=NOW, expected=True, knows=True)[0].state == "wrong"


def test_the_role_speech_is_wanted_where_something_speaks() -> None:
    told = judge([beat("a", "gate", "completion", "sink", *KNOWING)], now=NOW, expected=True, speaks=True)[0]
    assert told.advice.endswith("--roles speech")


def test_the_role_training_is_wanted_where_a_model_can_learn() -> None:
    told = judge([beat("a", "gate", "completion", "sink", *KNOWING)], now=NOW, expected=True, trains=True)[0]
    assert told.advice.endswith("--roles training")


@pytest.mark.parametrize(
    ("beats", "state", "who"),
    [
        ([beat("a", "gate", skew_s=0.1)], "ok", "a"),
        ([beat("a", "gate"), beat("b", "sink", skew_s=-5)], "warning", "-5.0 s off the brokers' (b)"),
        ([beat("a", "gate", skew_s=31)], "wrong", "+31.0 s off the brokers' (a)"),
        ([beat("a", "gate", ago_s=-10)], "warning", "-10.0 s off the brokers' (this machine)"),
        ([beat("a", "gate", ago_s=-40)], "wrong", "-40.0 s off the brokers' (this machine)"),
    ],
)
def test_a_clock_that_is_off_is_named(beats: list[Beat], state: str, who: str) -> None:
    told = judge(beats, now=NOW, expected=True)[1]
    assert told.state == state
    assert who in told.found


# --- the cluster ---


@pytest.mark.parametrize(
    ("copies", "own", "state"),
    [
        (Copies("t", 3, 3, 2), False, "ok"),
        (Copies("t", 1, 1, 1), True, "ok"),
        (Copies("t", 1, 1, 1), False, "warning"),
        (Copies("t", 3, 3, 1), False, "warning"),
        (Copies("t", 3, 2, 2), False, "warning"),
        (Copies("t", 3, 0, 2), False, "wrong"),
    ],
)
def test_what_a_lost_broker_would_cost_is_told_before(copies: Copies, own: bool, state: str) -> None:
    assert replication(Cluster(3, 12, [Copies("safe", 3, 3, 2), copies]), own=own).state == state


def test_many_differences_of_topics_are_one_line() -> None:
    told = topics([f"t{n}: is missing" for n in range(50)], count=0)
    assert told.state == "wrong"
    assert told.found.endswith("and 45 more")


# --- providers ---


@pytest.fixture
async def models() -> AsyncIterator[str]:
    """An API that knows one key; under /slow it never answers, under /broken it fails."""

    async def answer(request: web.Request) -> web.Response:
        if request.path.startswith("/slow"):
            await request.read()
            await asyncio.sleep(3600)
        if request.path.startswith("/broken"):
            return web.Response(status=500)
        return web.Response(status=200 if request.headers.get("authorization") == "Bearer right" else 401)

    app = web.Application()
    app.router.add_get("/{rest:.*}/models", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize(
    ("path", "key", "state", "found"),
    [
        ("/v1", "right", "ok", "/v1"),
        ("/v1/", "right", "ok", "/v1/"),
        ("/v1", "never-shown", "wrong", "refuses the key (401)"),
        ("/broken", "right", "warning", "answers 500"),
        ("/slow", "right", "wrong", "does not answer (ReadTimeout)"),
    ],
)
async def test_a_provider_is_asked_for_its_models(
    models: str, monkeypatch: pytest.MonkeyPatch, path: str, key: str, state: str, found: str
) -> None:
    monkeypatch.setattr(services, "HTTP_TIMEOUT_S", 0.5)
    began = time.monotonic()
    told = await provider("openai", models + path, key)
    assert time.monotonic() - began < 3
    assert told.state == state
    assert told.found.endswith(found)
    assert "never-shown" not in repr(told)


async def test_a_provider_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (told,) = await providers(settings(monkeypatch, ALLOWED_PROVIDERS="local", LOCAL_BASE_URL="http://127.0.0.1:1/v1"),
                              NOTHING)  # fmt: skip
    assert (told.part, told.state) == ("provider local", "wrong")


async def test_a_deployment_without_any_provider_or_secret_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, ALLOWED_PROVIDERS="openai", KAFKA_BOOTSTRAP_SERVERS="h:1")
    told = {finding.part: finding.state for finding in [*await providers(found, NOTHING), *secrets(found)]}
    assert told == {"provider openai": "absent", "providers": "wrong", "secrets": "wrong"}


# --- what runs here ---


def test_addresses_are_those_that_are_set_else_those_that_run_in_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home, me = Home(tmp_path), psutil.Process()
    home.make()
    parts = [PartState("kafka", "ready"), PartState("ingress", "restarting")]
    home.write_status(Status(me.pid, me.create_time(), kafka="k:1", postgres="postgresql://p/d", parts=parts))
    found = addresses(settings(monkeypatch, ASSISTANT_HOME=str(tmp_path), DATABASE_URL="postgresql://set/d"))
    assert (found.kafka, found.postgres) == ("k:1", "postgresql://set/d")
    (told,) = processes(found)
    assert (told.state, told.found) == ("wrong", "ingress is restarting")
    home.write_status(Status(me.pid, me.create_time() - 100, kafka="k:1"))
    monkeypatch.delenv("DATABASE_URL")
    assert addresses(settings(monkeypatch)) == NOTHING
    assert processes(NOTHING)[0].state == "absent"
