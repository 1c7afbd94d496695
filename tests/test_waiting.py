"""A bound is one of a machine with processors to spare, and is one all the same where there are none."""

import time
from pathlib import Path

import pytest

from tests import waiting
from tests.waiting import starved_s, until


def never() -> bool:
    return False


async def waited_s(within_s: float) -> float:
    began = time.monotonic()
    with pytest.raises(AssertionError, match="def never"):
        await until(never, within_s=within_s)
    return time.monotonic() - began


async def test_a_bound_is_longer_by_what_others_take_and_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "starved_s", lambda: 7.0)  # of before
    assert await waited_s(0.2) >= 0.2
    monkeypatch.setattr(waiting, "starved_s", time.monotonic)  # all of the time
    assert await waited_s(0.2) >= 0.6


def test_what_the_kernel_tells_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert starved_s() >= 0
    told = tmp_path / "cpu"
    monkeypatch.setattr(waiting, "PRESSURE", told)
    assert starved_s() == 0.0  # a kernel that does not
    told.write_text("some avg10=0.98 avg60=35.83 avg300=65.63 total=5968294650\nfull avg10=0.00 total=0\n")
    assert starved_s() == pytest.approx(5968.29465)
