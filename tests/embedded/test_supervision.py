"""Children are restarted, bounded, and never outlive who started them."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from embedded import child as child_module
from embedded.child import Child
from embedded.errors import EmbeddedError
from embedded.home import Home, PartState, Status
from embedded.part import Part
from embedded.ports import FIRST, KeptPorts, free_port, is_free
from tests.waiting import listener, until
from transport.ports import holder

ROOT = Path(__file__).parent.parent.parent


async def always() -> bool:
    return True


def part(code: str, **options) -> Part:
    return Part("fake", [sys.executable, "-c", textwrap.dedent(code)], always, env=dict(os.environ), **options)


SLEEPER = "import time; print('up', flush=True); time.sleep(600)"


async def test_a_child_that_is_killed_is_started_again_under_its_name(tmp_path: Path) -> None:
    child = Child(part(SLEEPER), tmp_path / "fake.log")
    child.start()
    first = child.process
    assert first is not None
    first.kill()

    def again() -> bool:
        assert child.watch()
        return child.process is not None and child.process.pid != first.pid

    await until(again)
    assert child.state.restarts == 1
    await child.check()
    assert child.state.state == "ready"
    await child.stop()
    assert child.state.pid is None


async def test_five_deaths_in_a_minute_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "FIRST_BACKOFF_S", 0.0)
    child = Child(part("raise SystemExit('it cannot work')"), tmp_path / "fake.log")
    child.start()
    await until(lambda: not child.watch())
    assert child.state.restarts == 4
    assert "it cannot work" in child.tail()


async def test_a_child_that_does_not_finish_is_killed(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    child = Child(part(stubborn, stop_timeout_s=0.2), tmp_path / "fake.log")
    child.start()
    await until(lambda: "up" in child.tail())
    process = child.process
    await child.stop()
    assert process is not None
    assert process.returncode == -signal.SIGKILL


async def test_a_log_is_cut_under_its_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "MAX_LOG_BYTES", 10_000)
    monkeypatch.setattr(child_module, "KEPT_LOG_BYTES", 1_000)
    writer = "import time\nwhile True: print('x' * 500, flush=True); time.sleep(0.001)"
    child = Child(part(writer), tmp_path / "fake.log")
    child.start()
    await until(lambda: child.log.stat().st_size > 20_000)
    child.bound_log()
    assert child.log.stat().st_size < 20_000
    assert child.log.with_suffix(".log.1").stat().st_size == 1_000
    await until(lambda: child.log.stat().st_size > 500)  # it goes on where the file begins
    await child.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise is Linux's")
async def test_no_child_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = f"""
        import os, sys, time
        from pathlib import Path
        from embedded.child import Child
        from embedded.part import Part
        async def always(): return True
        part = Part("fake", [sys.executable, "-c", {SLEEPER!r}], always, env=dict(os.environ))
        child = Child(part, Path({str(tmp_path)!r}) / "l")
        child.start()
        print(child.process.pid, flush=True)
        time.sleep(600)
    """
    supervisor = subprocess.Popen(  # noqa: ASYNC220 a moment, in a test
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )  # fmt: skip
    assert supervisor.stdout is not None
    pid = int(supervisor.stdout.readline())
    assert psutil.pid_exists(pid)
    supervisor.kill()
    supervisor.wait(10)
    supervisor.stdout.close()

    def gone() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    await until(gone, within_s=5)


def test_ports_are_chosen_once_and_their_holder_is_named(tmp_path: Path) -> None:
    ports = KeptPorts(tmp_path / "ports.json")
    port = ports.get("kafka")
    assert KeptPorts(tmp_path / "ports.json").get("kafka") == port
    other = listener(int(port))
    try:
        assert not is_free(port)
        assert f"pid {other.pid}" in holder(port)
        with pytest.raises(EmbeddedError, match=f"port {port}.*pid {other.pid}"):
            KeptPorts(tmp_path / "ports.json").get("kafka")
    finally:
        other.kill()
        other.communicate()


def test_secrets_are_invented_once_and_for_nobody_else(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()
    (home.secrets / "jwt_secret_key").touch()
    secret = home.secret("jwt_secret_key")
    assert len(secret) >= 32
    assert home.secret("jwt_secret_key") == secret
    assert [path.name for path in home.secrets.iterdir()] == ["jwt_secret_key"]
    assert (home.secrets / "jwt_secret_key").stat().st_mode & 0o777 == 0o600
    assert home.secrets.stat().st_mode & 0o777 == 0o700


def test_a_kill_while_a_secret_is_written_leaves_none_that_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.make()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("embedded.home.os.fdopen", killed)
        with pytest.raises(KeyboardInterrupt):
            home.secret("jwt_secret_key")
    assert not (home.secrets / "jwt_secret_key").exists()
    (home.secrets / "jwt_secret_key").touch()
    secret = home.secret("jwt_secret_key")
    assert len(secret) >= 32
    assert home.secret("jwt_secret_key") == secret


def test_a_supervisor_is_known_by_its_start_and_not_by_its_pid_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    me = psutil.Process()
    home.write_status(Status(me.pid, me.create_time(), parts=[PartState("kafka")]))
    assert home.supervisor() == me
    home.write_status(Status(me.pid, me.create_time() - 100))
    assert home.supervisor() is None
    home.status_file.write_text("{")
    assert home.read_status() is None
    assert time.time() > me.create_time()


def test_free_ports_are_free_and_none_that_outgoing_connections_are_given() -> None:
    for _ in range(50):
        port = free_port()
        assert is_free(port)
        assert port < 32_768


def test_no_port_is_given_twice_before_somebody_listens_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedded.ports.FIRST", FIRST)
    monkeypatch.setattr("embedded.ports.LAST", FIRST + 12)
    given = [free_port() for _ in range(20)]
    assert len(given) == len(set(given))
