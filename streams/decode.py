"""From records of our own topics to events."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka.structs import ConsumerRecord
from pydantic import ValidationError

from schemas.dead_letter import DeadLettered
from schemas.envelope import Attributes, Envelope, InvalidEnvelopeError
from schemas.events import Event, Job
from streams.encode import validation_reason

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A record that is no event. `job`: whose end it is, where that can be told."""

    code: str
    reason: str
    attributes: Attributes | None
    job: Job | None


Decode = Callable[[ConsumerRecord], Envelope[Any] | Undecodable]


def decoder(event_class: type[E]) -> Decode:
    """Reads records of one of our own topics."""

    def decode(record: ConsumerRecord) -> Envelope[E] | Undecodable:
        try:
            attributes = Attributes.parse(record.headers)
            payload = event_class.model_validate_json(record.value or b"")
        except InvalidEnvelopeError as error:
            return Undecodable("invalid-event", str(error), None, None)
        except ValidationError as error:
            reason = validation_reason(error.errors(include_input=False, include_context=False, include_url=False))
            return Undecodable("invalid-event", reason, attributes, None)
        return Envelope(attributes, payload, record.partition, record.offset)

    return decode


def any_dead_letter(record: ConsumerRecord) -> Envelope[Any]:
    """Reads records of `dead-letters`, which are whatever they were: there is none that it cannot read."""
    letter = DeadLettered.parse(
        partition=record.partition, offset=record.offset, timestamp_ms=record.timestamp, key=record.key,
        value=record.value, headers=record.headers,
    )  # fmt: skip
    return Envelope(Attributes("", "", "dead-letters"), letter, record.partition, record.offset)
