"""Failpoints end a process where they say, and the product knows nothing of them."""

import subprocess
import sys
import tomllib

import pytest

from chaos.failpoints import POINTS, Failpoint, NoSuchPointError
from processors.errors import RetryableError
from tests.deployment import ROOT

PRODUCT = ("client", "embedded", "ingress", "processors", "providers", "schemas", "sinks", "streams", "transport")


@pytest.mark.parametrize("text", ["", "x", "limit_rate.after_send", "limit_rate.after_send:exit@0", "a.b:exit@1",
                                  "limit_rate.after_send:stop@1", "limit_rate.after_send:exit@x"])  # fmt: skip
def test_a_point_or_action_that_there_is_not_is_an_error(text: str) -> None:
    with pytest.raises(NoSuchPointError):
        Failpoint.parse(text)


def test_it_acts_at_the_passing_that_was_asked_for_and_once() -> None:
    hit = Failpoint.parse("store_outcome.after_write:fail@2")
    hit("store_outcome.after_write")
    hit("store_outcome.before_write")
    with pytest.raises(RetryableError):
        hit("store_outcome.after_write")
    hit("store_outcome.after_write")


def test_exit_is_a_kill() -> None:
    script = (
        "from chaos.failpoints import Failpoint\n"
        "hit = Failpoint.parse('route_job.after_ack:exit@3')\n"
        "for n in range(5): hit('route_job.after_ack'); print(n, flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (-9, ["0", "1"])


def test_every_stage_and_role_has_points() -> None:
    stages = {point.rpartition(".")[0] for points in POINTS.values() for point in points}
    assert stages == {"ingress", "sanitize_prompt", "limit_rate", "route_job", "gate", "generate_completion",
                      "completion", "store_pending", "store_outcome", "sink", "webhook", "release_due"}  # fmt: skip


def test_the_release_has_no_failpoints() -> None:
    """The suite is not packaged, no module of the product loads it, and `FAIL` means nothing to the product."""
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert not [name for name in packaged if name.startswith(("chaos", "tests"))]
    for package in (*PRODUCT, "cli.py", "settings"):
        path = ROOT / package
        for file in [path] if path.is_file() else path.rglob("*.py"):
            text = file.read_text()
            assert "import chaos" not in text, file
            assert "from chaos" not in text, file
            assert '"FAIL"' not in text, file
    script = (
        "import sys, cli, streams.worker, ingress.server, embedded.commands, client.commands\n"
        "from streams.app import StreamApp\n"
        "assert StreamApp.hand_over.__module__ == 'streams.app'\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('chaos', 'tests')]"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={"FAIL": "route_job.after_ack:exit@1", "PATH": ""})  # fmt: skip
    assert done.returncode == 0, done.stderr
