"""The newcomer's way: up in a fresh home, ask, look, publish, down, and up again with the data still there."""

import json
import os
import time
from pathlib import Path
from uuid import uuid4

import confluent_kafka
import httpx
import psutil
import pytest

from schemas.ids import direct_job_id
from tests.embedded.newcomer import Newcomer
from tests.waiting import listener

pytestmark = pytest.mark.integration
NEEDED = {"kafka", "postgres", "ingress", "model", "worker"}
KILLED = ("worker-gate", "ingress", "model")


def test_up_ask_look_publish_down_and_up_again(newcomer: Newcomer) -> None:
    newcomer.types("down", "--delete-data")  # of another test
    assert "nothing is running here" in newcomer.types("chat", "hello", ok=False)
    told = newcomer.types("up", "--detach")
    assert "The admin is root" in told
    status = newcomer.status()
    assert status["ready"]
    for part in NEEDED:
        assert any(part in process["name"] for process in status["processes"])
    resident = newcomer.resident()
    assert sum(mb for mb, _ in resident) < 1_700, resident

    answer = json.loads(newcomer.types("chat", "Why is the sky blue?", "--max-tokens", "20", "--json"))
    assert answer["meta"]["provider"] == "local"
    assert len(answer["result"]["text"]) > 10
    assert answer["usage"]["completion_tokens"] <= 20
    listed = newcomer.types("jobs")
    assert "Why is the sky" not in listed or "completed" in listed

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

    # kill -9 of several: each comes back under its name, and answers go on
    before = {process["name"]: process["pid"] for process in newcomer.status()["processes"]}
    killed = {name: before[name] for name in KILLED}
    for pid in killed.values():
        os.kill(pid, 9)
    _until_back(newcomer, killed)
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


def test_a_port_in_use_is_named_with_its_holder(service_home: Path) -> None:
    newcomer = Newcomer(service_home / "unlucky")
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
    deadline = time.monotonic() + 180  # others may want the processors
    while True:
        items = json.loads(newcomer.types("jobs", "--json"))
        if any(item["job_id"] == job_id and item["status"] == "completed" for item in items):
            return
        assert time.monotonic() < deadline, items


def _until_back(newcomer: Newcomer, killed: dict[str, int]) -> None:
    deadline = time.monotonic() + 180  # others may want the processors
    while True:
        status = newcomer.status()
        back = [process for process in status["processes"] if process["name"] in killed]
        if status["ready"] and all(process["pid"] not in (None, killed[process["name"]]) for process in back):
            assert {process["restarts"] for process in status["processes"] if process["name"] in killed} == {1}
            assert {process["restarts"] for process in status["processes"] if process["name"] not in killed} == {0}
            assert httpx.get(f"{status['ingress']}/readyz").status_code == 200
            return
        assert time.monotonic() < deadline, status
