"""What was told of an execution, as it is told to each who listens, and how much of it may be held."""

from bisect import bisect_right
from dataclasses import dataclass, field
from uuid import UUID

import orjson

from schemas.events import StreamedRange

WHOLE = UUID(int=0)  # of an answer that was not told piece by piece
WHOLE_ID = "end"


def text_told(piece: bytes) -> str:
    """The text of a piece, which is one as `Told` keeps them."""
    _, found, data = piece.partition(b"\ndata: ")
    text: str = orjson.loads(data)["text"] if found else ""
    return text


@dataclass(slots=True)
class Told:
    """What is known of one execution: its pieces from number `base` on, those before it are held no more."""

    execution: UUID
    partition: int = -1
    base: int = 0
    has_gap: bool = False
    offsets: list[int] = field(default_factory=list)  # parallel to `pieces`, which are as they are told
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0

    @property
    def next(self) -> int:
        """The number of the piece that comes next."""
        return self.base + len(self.pieces)

    @property
    def last(self) -> int:
        """Offset of the newest piece; -1 before the first."""
        return self.offsets[-1] if self.offsets else -1

    def add(self, offset: int, text: str, event_id: str) -> int:
        """Keep a piece; how many bytes it is."""
        data = orjson.dumps({"text": text})
        piece = b"id: %b\nevent: delta\ndata: %b\n\n" % (event_id.encode(), data) if text else b""
        self.offsets.append(offset)
        self.pieces.append(piece)
        self.size += len(piece)
        return len(piece)

    def trim(self, max_bytes: int) -> int:
        """Let the oldest go, but for the newest one; how many bytes that were."""
        before, count = self.size, 0
        while self.size > max_bytes and count < len(self.pieces) - 1:
            self.size -= len(self.pieces[count])
            count += 1
        self.base += count
        del self.offsets[:count], self.pieces[:count]
        return before - self.size

    def after(self, offset: int) -> int | None:
        """The number of the piece after the one at this offset, if it is there."""
        at = bisect_right(self.offsets, offset)
        return self.base + at if at and self.offsets[at - 1] == offset else None

    def holds(self, where: StreamedRange) -> bool:
        """All of it was heard."""
        return self.execution == where.execution and not self.has_gap and self.last >= where.last_offset


@dataclass(slots=True)
class Budget:
    """How many bytes all channels hold, and may."""

    max_bytes: int
    max_job_bytes: int
    held: int = 0
