"""Where a job is, from what was heard of it."""

from datetime import timedelta
from typing import Any

import pytest

from ingress.jobs import waits_for_provider
from ingress.progress import Progress
from tests.factories import NOW


def progress(state: str, **more: Any) -> Progress:
    fields: dict[str, Any] = {"user_id": "alice", "stage": "route_job", "retry_at": None, "attempts": None, "at": NOW}
    return Progress(state=state, **fields | more)


@pytest.mark.parametrize(("state", "after_s"), [("admitted", 1), ("retrying", 11)])
def test_a_job_that_nothing_was_heard_of_since_it_was_sent_waits_for_its_provider(state: str, after_s: float) -> None:
    assert not waits_for_provider(progress(state), now=NOW + timedelta(seconds=after_s))
    assert waits_for_provider(progress(state), now=NOW + timedelta(seconds=after_s + 0.1))


def test_one_that_was_put_off_does_so_from_its_time_on() -> None:
    put_off = progress("waiting", retry_at=NOW + timedelta(seconds=30))
    assert not waits_for_provider(put_off, now=NOW + timedelta(seconds=29))
    assert waits_for_provider(put_off, now=NOW + timedelta(seconds=33))


def test_one_that_is_at_work_does_not() -> None:
    assert not waits_for_provider(progress("started"), now=NOW + timedelta(hours=1))
