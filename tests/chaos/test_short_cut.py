"""The short cut of `make chaos`: a few faults of each kind, nothing lost, nothing doubled; and its teeth."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests import scratch
from tests.deployment import ROOT

pytestmark = pytest.mark.integration
# The rows that are to be there. Row 10 (an event that kills its process) joins them with its fault.
ROWS = ("1", "2", "3", "11", "12", "29")


def chaos(*words: str, ends_with: int, within_s: float) -> str:
    home = scratch.folder()
    done = subprocess.run(
        [sys.executable, "-m", "chaos", *words], cwd=ROOT, env=os.environ | {"TMPDIR": str(home)},
        capture_output=True, text=True, timeout=within_s, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == ends_with, output  # what it has written is kept then
    shutil.rmtree(home)
    return output


def figures(output: str) -> dict[str, int]:
    found = {name: int(number) for name, number in re.findall(r"([a-z-]+)=(\d+)", output)}
    assert {"seed", "acked", "kills", "lost", "doubled", "repeated"} <= found.keys(), output
    return found


def test_under_the_short_cuts_faults_nothing_is_lost_or_doubled() -> None:
    output = chaos("--short", "--jobs", "6250", "--duration-s", "600", "--rounds", "1", ends_with=0, within_s=780)
    found = figures(output)
    assert found["lost"] == found["doubled"] == 0
    assert found["acked"] >= 500, output
    assert found["kills"] >= 10, output
    for row in ROWS:
        assert re.search(rf"│ {row} +│", output), f"no row {row}\n{output}"
    assert "void" not in output, output


@pytest.mark.long
def test_the_same_suite_reports_what_stock_fausts_consumer_loses_and_a_mutant_doubles() -> None:
    """Stock Faust's consumer under the product's own stages; and a sink that lets the last outcome win."""
    output = chaos(
        "--short", "--consumer", "stock", "--mutant", "last-outcome-wins", "--faults", "1,3", "--jobs", "2400",
        "--duration-s", "180", "--rounds", "2", ends_with=1, within_s=300,
    )  # fmt: skip
    assert figures(output)["lost"] > 0, output
    assert figures(output)["doubled"] > 0, output
    assert "lost: job-" in output
