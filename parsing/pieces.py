"""What readers of files hand on. Plain tuples: the child that they run in imports nothing that it can do without."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol


class Piece(NamedTuple):
    """A paragraph, list item, table or heading. `level`: of a heading, 1 the highest. `page`: from 1."""

    text: str
    page: int | None = None
    level: int | None = None


class Portion(NamedTuple):
    """What was read since the last one: `read` of `total` pages (None: not known)."""

    pieces: list[Piece]
    read: int
    total: int | None


class Reader(Protocol):
    """Reads files of one type."""

    def __call__(self, file: BinaryIO) -> Iterator[Portion]:
        """All of it, in reading order, as little at once as its format allows."""
        ...
