"""The headers around an event."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas import envelope
from schemas.envelope import Attributes

OWN_TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def test_what_is_written_is_read() -> None:
    attributes = Attributes("e-1", "/s", "prompt-sanitized", OWN_TIME, "e-0", (("traceparent", "00-a-b-01"),))
    assert Attributes.parse(attributes.headers()) == attributes
    bare = Attributes("e-1", "/s", "prompt-sanitized")
    assert Attributes.parse(bare.headers()).trace == ()


def test_the_time_of_an_event_that_has_none_is_now_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> datetime:
        time = Attributes.parse(Attributes("e-1", "/s", "t").headers()).time
        assert time is not None
        return time

    before = datetime.now(UTC) - timedelta(milliseconds=1)  # it is told in whole milliseconds
    first = told()
    assert before <= first <= datetime.now(UTC)
    began = envelope._told[0]
    monkeypatch.setattr(envelope, "time_ns", lambda: began * 1_000_000 + 999_999)
    monkeypatch.setattr(envelope, "_told", (began, b"2026-01-01T00:00:00.000+00:00"))
    assert told() == datetime(2026, 1, 1, tzinfo=UTC)  # the same millisecond
    monkeypatch.setattr(envelope, "time_ns", lambda: (began + 1) * 1_000_000)
    assert told() >= first
