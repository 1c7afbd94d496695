"""The command line as a program: what it says and how it ends where it cannot start."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from cli import app
from embedded.ports import free_port
from tests.conftest import SECRET
from tests.waiting import listener

ROOT = Path(__file__).parent.parent


def types(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
    return subprocess.run(
        [sys.executable, "-m", "cli", *words], env=clean | environment, cwd=ROOT, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("command", "setting"), [("ingress", "INGRESS_PORT"), ("worker", "WORKER_HTTP_PORT")])
def test_a_port_in_use_is_one_sentence_with_its_holder(command: str, setting: str) -> None:
    port = free_port()
    other = listener(port)
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "DATABASE_URL": "postgresql://127.0.0.1:1/x",
        "JWT_SECRET_KEY": SECRET, setting: str(port),
    }  # fmt: skip
    try:
        done = types(command, **environment)
    finally:
        other.kill()
        other.communicate()
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"port {port} is held by python (pid {other.pid}): end that, or choose another with {setting}"
    ]


@pytest.mark.parametrize(("command", "setting"), [("ingress", "INGRESS_HOST"), ("worker", "WORKER_HTTP_HOST")])
def test_an_address_that_is_not_this_machines_is_one_sentence(command: str, setting: str) -> None:
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "DATABASE_URL": "postgresql://127.0.0.1:1/x",
        "JWT_SECRET_KEY": SECRET, setting: "192.0.2.1",
    }  # fmt: skip
    done = types(command, **environment)
    assert done.returncode == 1
    assert "cannot be listened on" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_setting_that_is_missing_is_named() -> None:
    done = types("worker")
    assert done.returncode == 1
    assert done.stderr.startswith("KAFKA_BOOTSTRAP_SERVERS is not set")


def test_every_command_that_the_docs_show_is_there() -> None:
    shown = re.compile(r"\bassistant ((?:[a-z]+)(?: [a-z]+)?)")
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert pages
    told = {
        words
        for page in pages
        for code in re.findall(r"`([^`\n]+)`", page.read_text())
        for words in shown.findall(code)
    }
    commands: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
    for words in told:
        first, _, second = words.partition(" ")
        assert first in commands, words
        below = getattr(commands[first], "commands", None)
        if below is not None and second:
            assert second in below, words
