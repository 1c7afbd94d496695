"""What all events have in common. Times are UTC; durations carry their unit in the name."""

from datetime import UTC, datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict

FOREVER = datetime(9999, 1, 1, tzinfo=UTC)  # a quarantine until somebody lifts it
Time = AwareDatetime  # one without a zone cannot be compared with any other


class Event(BaseModel):
    """Base of all that travels on a topic."""

    # Inputs are prompts and answers: an error that reaches a log must not carry them there.
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


def utc_from_ms(timestamp_ms: int) -> datetime:
    """A broker's timestamp as a time."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=timestamp_ms)


def ms_from_utc(at: datetime) -> int:
    """A time as a broker's timestamp."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
