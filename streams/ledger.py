"""What of a partition was delivered and what of it is finished: from this comes what may be committed."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Protocol, TypeVar

from aiokafka.structs import OffsetAndMetadata

MAX_OPEN = 20_000  # offsets between the lowest unfinished one and the newest delivered
MAX_METADATA_BYTES = 3_500  # brokers refuse 4,097
MAX_RECENT_IDS = 20_000


class Delivered(Protocol):
    """What the ledger needs of a record."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Its append time, ms."""
        ...


R = TypeVar("R", bound=Delivered)


class Ledger:
    """Delivered and finished offsets of one partition, for as long as this process owns it.

    Committed is the lowest unfinished offset. What is finished above it goes into the commit's metadata as
    "<append time> <gap>.<run> ...", in hex, upward; the next owner does not deliver that again.
    """

    def __init__(self, first: Delivered, committed: OffsetAndMetadata | None = None) -> None:
        """`first`: the first record delivered; `committed`: what the group has committed for the partition."""
        self.live = True  # False: the partition is leaving; nothing more of it is begun
        self.open: deque[tuple[int, int]] = deque()
        self._done: set[int] = set()
        self._next = first.offset
        self._finished_before = _decode(first, committed)
        self._recent_ids: OrderedDict[str, None] = OrderedDict()

    def deliver(self, records: Sequence[R]) -> list[R]:
        """The records that are fresh: neither delivered before nor finished by an earlier owner."""
        fresh = [record for record in records if record.offset >= self._next]
        if not fresh:
            return []
        again = self._finished_before & {record.offset for record in fresh}
        self.open.extend((record.offset, record.timestamp) for record in fresh)
        self._done |= again
        self._finished_before -= again
        self._next = fresh[-1].offset + 1
        return [record for record in fresh if record.offset not in again] if again else fresh

    def finish(self, offset: int) -> None:
        """All that follows from this record has happened."""
        self._done.add(offset)

    def is_repeated(self, event_id: str) -> bool:
        """True if an event of this id was seen lately: a crash upstream leaves the same event at two offsets."""
        if event_id in self._recent_ids:
            return True
        self._recent_ids[event_id] = None
        if len(self._recent_ids) > MAX_RECENT_IDS:
            self._recent_ids.popitem(last=False)
        return False

    @property
    def unfinished(self) -> int:
        """How many records were delivered and are not finished."""
        self.committable()
        return len(self.open) - len(self._done)

    def committable(self) -> OffsetAndMetadata:
        """The lowest offset unfinished, and in its metadata what is finished above it."""
        while self.open and self.open[0][0] in self._done:
            self._done.discard(self.open.popleft()[0])
        if not self.open:
            return OffsetAndMetadata(self._next, "")
        return OffsetAndMetadata(self.open[0][0], self._encode())

    def _encode(self) -> str:
        lowest, append_time = self.open[0]
        words: list[str] = []
        size, at = 0, lowest
        start = stop = -1
        for offset in [*sorted(n for n in self._done | self._finished_before if n > lowest), -1]:
            if start >= 0 and offset != stop:  # a run of finished offsets ends here
                words.append(f"{start - at:x}.{stop - start:x}")
                at, start, size = stop, -1, size + len(words[-1]) + 1
                if size > MAX_METADATA_BYTES - 40:
                    break  # the rest is done again: at least once
            if start < 0:
                start = offset
            stop = offset + 1
        return " ".join([f"{append_time:x}", *words]) if words else ""


def _decode(first: Delivered, committed: OffsetAndMetadata | None) -> set[int]:
    stamp, *words = committed.metadata.split() if committed and committed.metadata else ("",)
    # Another append time at the committed offset: the topic was made anew, and the offsets mean other records.
    if committed is None or not stamp or committed.offset != first.offset or int(stamp, 16) != first.timestamp:
        return set()
    finished: set[int] = set()
    at = committed.offset
    for gap, run in (word.split(".") for word in words):
        start = at + int(gap, 16)
        at = start + int(run, 16)
        finished.update(range(start, at))
    return finished
