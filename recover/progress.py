"""What is told while it works."""

from typing import Protocol


class Report(Protocol):
    """Shows how far it is."""

    def begin(self, what: str, total: int) -> None:
        """A new step with so much to do; ends the one before."""
        ...

    def advance(self, done: int) -> None:
        """So much more of it is done."""
        ...
