"""What a sink is."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from schemas.envelope import Envelope


class Sink(Protocol):
    """Takes finished work. `serve_sink` calls it, one batch of a partition at a time."""

    async def write(self, envelopes: "Sequence[Envelope[Any]]") -> None:
        """Write all or none; may be called again with the same.

        Raises:
            RetryableError: The target is away.
            PermanentError: One of them will never be taken.
        """
        ...


@runtime_checkable
class PoisonableSink(Protocol):
    """A sink that leaves a mark where a row was refused for good."""

    async def write_poisoned(self, envelope: "Envelope[Any]") -> None:
        """Write it without its text, as an error."""
        ...
