"""CloudEvents 1.0 on Kafka, binary mode: what is around an event on the wire.

Source: CloudEvents Kafka protocol binding 1.0.2, section 3.2 (attributes are headers `ce_*`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import time_ns
from typing import Generic, Self, TypeVar
from uuid import UUID

from schemas.events import Event

Headers = list[tuple[str, bytes | None]]
E = TypeVar("E", bound=Event)
SPEC_VERSION = b"1.0"
CONTENT_TYPE = b"application/json"
TRACE_HEADERS = ("traceparent", "tracestate")
MAX_ATTRIBUTE_CHARS = 256


class InvalidEnvelopeError(ValueError):
    """The headers are not those of a CloudEvent; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """The CloudEvents attributes of one record."""

    event_id: str
    source: str
    type: str
    time: datetime | None = None
    caused_by: str | None = None
    trace: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, headers: Iterable[tuple[str, bytes | None]]) -> Self:
        """Read them from a record's headers.

        Raises:
            InvalidEnvelopeError: `ce_id`, `ce_source`, `ce_type` or `ce_specversion` is missing, of another
                version, not UTF-8 or over 256 characters.
        """
        found: dict[str, str] = {}
        for name, value in headers:
            if name.startswith("ce_") or name in TRACE_HEADERS:
                try:
                    found[name] = (value or b"").decode()
                except UnicodeDecodeError:
                    raise InvalidEnvelopeError(f"the header {name[:40]} is not UTF-8") from None
        for name in ("ce_id", "ce_source", "ce_type", "ce_specversion"):
            if not found.get(name):
                raise InvalidEnvelopeError(f"the header {name} is missing: every record is a CloudEvent in binary mode")
            if len(found[name]) > MAX_ATTRIBUTE_CHARS:
                raise InvalidEnvelopeError(f"the header {name} is longer than {MAX_ATTRIBUTE_CHARS} characters")
        if found["ce_specversion"] != "1.0":
            raise InvalidEnvelopeError("the header ce_specversion must be 1.0")
        try:
            time = datetime.fromisoformat(found["ce_time"]) if "ce_time" in found else None
        except ValueError:
            time = None  # only informative: the broker's append time is what counts
        is_traced = not found.keys().isdisjoint(TRACE_HEADERS)  # hardly any is
        return cls(
            event_id=found["ce_id"],
            source=found["ce_source"],
            type=found["ce_type"],
            time=time,
            caused_by=found.get("ce_causationid"),
            trace=tuple((name, found[name][:512]) for name in TRACE_HEADERS if name in found) if is_traced else (),
        )

    def headers(self) -> Headers:
        """As a record carries them."""
        headers: Headers = [
            ("ce_id", self.event_id.encode()),
            ("ce_source", self.source.encode()),
            ("ce_specversion", SPEC_VERSION),
            ("ce_type", self.type.encode()),
            ("ce_time", self.time.isoformat().encode() if self.time else _now()),
            ("content-type", CONTENT_TYPE),
        ]
        if self.caused_by is not None:
            headers.append(("ce_causationid", self.caused_by.encode()))
        if self.trace:
            headers.extend((name, value.encode()) for name, value in self.trace)
        return headers


_told: tuple[int, bytes] = (0, b"")


def _now() -> bytes:
    """The time for a header, which is only informative: written anew once in a millisecond."""
    global _told
    told_ms, text = _told
    if (ms := time_ns() // 1_000_000) != told_ms:
        text = datetime.now(UTC).isoformat(timespec="milliseconds").encode()
        _told = ms, text
    return text


@dataclass(frozen=True, slots=True)
class Envelope(Generic[E]):
    """One event as it was on its topic. Stages never see it; sinks and `serve` do."""

    attributes: Attributes
    payload: E
    partition: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One record to be published; `topic` is the full name, prefix included.

    `instead`: what is published where the brokers refuse it for good, as too large; without it that is a failure.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = field(default_factory=list)
    partition: int | None = None
    instead: "Callable[[], Sequence[Record]] | None" = field(default=None, compare=False, repr=False)


def first_header(headers: Sequence[tuple[str, bytes | None]], name: str) -> str | None:
    """The first header of that name as text, or None."""
    for found, value in headers:
        if found == name and value is not None:
            return value.decode(errors="replace")
    return None


def is_uuid(text: str) -> UUID | None:
    """The UUID that a text is, or None."""
    try:
        return UUID(text)
    except ValueError:
        return None
