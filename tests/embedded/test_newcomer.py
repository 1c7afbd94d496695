"""The newcomer's way: up in a fresh home, ask, look, publish, down, and up again with the data still there."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import confluent_kafka
import httpx
import psutil
import pytest

from embedded.home import Home
from embedded.ports import free_port
from schemas.ids import direct_job_id
from tests.waiting import listener

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent.parent
NEEDED = {"kafka", "postgres", "ingress", "model", "worker"}


class Newcomer:
    """Somebody with a fresh home who types commands."""

    def __init__(self, home: Path) -> None:
        port = str(free_port())
        clean = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        # The path: `.venv/bin/assistant` then runs this checkout, wherever its environment was installed from.
        self.environment = {**clean, "ASSISTANT_HOME": str(home), "INGRESS_PORT": port, "PYTHONPATH": str(ROOT)}

    def types(self, *words: str, ok: bool = True) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cli", *words], env=self.environment, cwd=ROOT, capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "cli", "status", "--json"], env=self.environment, cwd=ROOT, capture_output=True,
            text=True, timeout=30, check=False,
        )  # fmt: skip
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def resident(self) -> int:
        """Bytes of the supervisor and all that it has started."""
        supervisor = Home(Path(self.environment["ASSISTANT_HOME"])).supervisor()
        assert supervisor is not None
        tree = [supervisor, *supervisor.children(recursive=True)]
        pids = {process.pid for process in tree}
        assert {process["pid"] for process in self.status()["processes"]} < pids
        return sum(process.memory_info().rss for process in tree)


@pytest.fixture
def newcomer(service_home: Path) -> Iterator[Newcomer]:
    newcomer = Newcomer(service_home / "newcomer")
    yield newcomer
    newcomer.types("down", "--delete-data")


def test_up_ask_look_publish_down_and_up_again(newcomer: Newcomer) -> None:
    assert "nothing is running here" in newcomer.types("chat", "hello", ok=False)
    told = newcomer.types("up", "--detach")
    assert "The admin is root" in told
    status = newcomer.status()
    assert status["ready"]
    for part in NEEDED:
        assert any(part in process["name"] for process in status["processes"])
    assert newcomer.resident() < 1.7e9

    answer = json.loads(newcomer.types("chat", "Why is the sky blue?", "--max-tokens", "20", "--json"))
    assert answer["meta"]["provider"] == "local"
    assert len(answer["result"]["text"]) > 10
    assert answer["usage"]["completion_tokens"] <= 20
    assert "Why is the sky" not in newcomer.types("jobs") or "completed" in newcomer.types("jobs")

    event_id, source = str(uuid4()), "https://newcomer.example"
    producer = confluent_kafka.Producer({"bootstrap.servers": status["kafka"]})
    request = {"prompt": "Say hello.", "generation_config": {"max_tokens": 10}}
    producer.produce(
        "job-requested",
        json.dumps({"user_id": "root", "kind": "chat", "request": request}),
        headers=[("ce_id", event_id), ("ce_source", source), ("ce_specversion", "1.0"), ("ce_type", "job-requested")],
    )
    assert producer.flush(10) == 0
    job_id = str(direct_job_id(source, "root", event_id))
    _wait_for(newcomer, job_id)

    # kill -9 of each process in turn: it comes back under its name, and answers go on
    for name in ("worker-gate", "ingress", "model"):
        pid = next(process["pid"] for process in newcomer.status()["processes"] if process["name"] == name)
        os.kill(pid, 9)
        _until_ready(newcomer, name, pid)
    assert json.loads(newcomer.types("chat", "Still there?", "--max-tokens", "5", "--json"))["result"]["text"]

    report = json.loads(newcomer.types("doctor", "--json"))
    states = {finding["part"]: finding["state"] for finding in report["findings"]}
    for part in ("java", "kafka jars", "model", "processes", "kafka", "topics", "replication", "workers", "clocks",
                 "postgres", "schema", "provider local", "ingress"):  # fmt: skip
        assert states[part] == "ok", report

    assert "it runs already" in newcomer.types("up", "--detach")
    pids = [process["pid"] for process in newcomer.status()["processes"]]
    newcomer.types("down")
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert newcomer.status() == {"ready": False, "ingress": None, "kafka": None, "postgres": None, "processes": []}
    assert "The admin is root" not in newcomer.types("up", "--detach")
    _wait_for(newcomer, job_id)
    newcomer.types("down")


def test_a_port_in_use_is_named_with_its_holder(newcomer: Newcomer) -> None:
    port = newcomer.environment["INGRESS_PORT"]
    other = listener(int(port))
    try:
        told = newcomer.types("up", "--detach", ok=False)
        assert f"port {port} is held by" in told
        assert str(other.pid) in told.replace("\n", "")
        assert "INGRESS_PORT=" in told
    finally:
        other.kill()
        other.communicate()


def _wait_for(newcomer: Newcomer, job_id: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        items = json.loads(newcomer.types("jobs", "--json"))
        if any(item["job_id"] == job_id and item["status"] == "completed" for item in items):
            return
        assert time.monotonic() < deadline, items


def _until_ready(newcomer: Newcomer, name: str, old_pid: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        status = newcomer.status()
        process = next(process for process in status["processes"] if process["name"] == name)
        if status["ready"] and process["pid"] not in (None, old_pid):
            assert process["restarts"] == 1
            assert httpx.get(f"{status['ingress']}/readyz").status_code == 200
            return
        assert time.monotonic() < deadline, status
