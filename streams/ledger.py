"""What of a partition was delivered and what of it is finished: from this comes what may be committed."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import islice
from typing import Protocol, TypeVar

from aiokafka.structs import OffsetAndMetadata

from streams.commit_metadata import LIVES, decode, encode

MAX_OPEN = 20_000  # offsets between the lowest unfinished one and the newest delivered
MAX_RECENT_IDS = 20_000
SUSPECT_FROM = 2  # deaths of processes that had a record in hand, before it is handled alone
# Then it is not handled any more: it was alone at the last one. A death counts twice for a record that had just begun.
# So one that kills at once has three; what three kills from outside have hit, after it had begun well, is tried again.
MAX_CRASHES = 4
FOUND, LIKELY, SUSPECT, DIED_ONCE, NEVER_DIED = range(5)


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

    Committed is the lowest unfinished offset. In the commit's metadata rides what is finished above it, which the next
    owner does not deliver again, and what is in hand, so that a record that kills its process is found: after the first
    death those that may have been in hand are written down before anything is done with them; after the second they are
    handled alone, one after another; the one that was alone at the third is not handled any more, if it had just begun
    at the second, else the one that was alone at two.
    """

    def __init__(
        self, first: Delivered, committed: OffsetAndMetadata | None = None, *, end: int = 0, at_once: int = 0
    ) -> None:
        """What is known of the partition before anything of it begins.

        Args:
            first: The first record delivered.
            committed: What the group has committed for the partition.
            end: The partition's high watermark now; below it an earlier owner may have worked.
            at_once: As many as an owner has in hand at once.
        """
        self.live = True  # False: the partition is leaving; nothing more of it is begun
        self.open: deque[tuple[int, int]] = deque()
        self.zone_end = min(end, first.offset + MAX_OPEN)
        self._done: set[int] = set()
        self._next = first.offset
        at, metadata = (committed.offset, committed.metadata or "") if committed else (first.offset, "")
        told = decode(metadata, at, first.offset, first.timestamp)
        self._finished_before, self._crashes = told.finished, told.crashes
        self._unlisted: set[int] = set()
        if told.crashed:  # what it had begun since its last commit is not on the list
            unfinished = (n for n in range(first.offset, self.zone_end) if n not in self._finished_before)
            self._unlisted = set(islice(unfinished, at_once)) - self._crashes.keys()
            self._crashes |= dict.fromkeys(self._unlisted, 1)
        self._in_hand: set[int] = set()
        self.newest: set[int] = set()  # of those in hand: they have just begun
        self._blamed: set[int] = set()
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
        fresh = [record for record in fresh if record.offset not in again] if again else fresh
        if self._crashes:
            self._in_hand |= {record.offset for record in fresh if 0 < self.crashes(record.offset) < SUSPECT_FROM}
        return fresh

    def names_any(self, records: Sequence[R]) -> bool:
        """True if one of these is to be written down before anything is done with it."""
        return bool(self._crashes) and any(record.offset in self._in_hand for record in records)

    def likeliest_first(self, records: list[R]) -> list[R]:
        """In the order in which they are to begin, those first that may have killed their process.

        Of those that are handled alone, who is found is first, and then who had just begun or was alone already: of
        what begins a few at a time, most that kill do so at once. So of those that died once, those are first that no
        commit could name.
        """
        if not self._crashes:
            return records
        return sorted(records, key=lambda record: (self.rank(record.offset), record.offset not in self._unlisted))

    def rank(self, offset: int) -> int:
        """Who comes before whom; see `likeliest_first`."""
        if self.is_found(offset):
            return FOUND
        if self.is_suspect(offset):
            return LIKELY if self.crashes(offset) > SUSPECT_FROM else SUSPECT
        return DIED_ONCE if self.crashes(offset) else NEVER_DIED

    def lay_down(self, offset: int) -> None:
        """This record waits: it is not in hand until it begins."""
        self._in_hand.discard(offset)

    def begin(self, offset: int) -> None:
        """This record is in hand now."""
        self._in_hand.add(offset)

    def finish(self, offset: int) -> None:
        """All that follows from this record has happened."""
        self._done.add(offset)
        self._in_hand.discard(offset)
        if self._crashes:
            self._crashes.pop(offset, None)

    def blame(self, offset: int) -> None:
        """This process ends because of the record: the next owner hears of it, though the leaving is in order."""
        self._in_hand.add(offset)
        self._blamed.add(offset)

    def crashes(self, offset: int) -> int:
        """How many processes have died with this record in hand; one counts twice where it had just begun."""
        return self._crashes.get(offset, 0) if self._crashes else 0

    def is_found(self, offset: int) -> bool:
        """True if it killed its process when it was alone: it is not handled any more."""
        return self.crashes(offset) >= MAX_CRASHES

    def acquit(self) -> bool:
        """Who killed is found: others that were suspected with it may run beside others again. False: there are none.

        One more death makes them suspects again, and the next finds them.
        """
        acquitted = {offset for offset, crashes in self._crashes.items() if SUSPECT_FROM <= crashes < MAX_CRASHES}
        self._crashes |= dict.fromkeys(acquitted, SUSPECT_FROM - 1)
        self._in_hand |= {offset for offset in acquitted if offset < self._next}
        return bool(acquitted)

    def is_suspect(self, offset: int) -> bool:
        """True if the record must be handled alone."""
        return self.crashes(offset) >= SUSPECT_FROM

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
        self.lowest_unfinished()
        return len(self.open) - len(self._done)

    def lowest_unfinished(self) -> int:
        """The offset that may be committed."""
        while self.open and self.open[0][0] in self._done:
            self._done.discard(self.open.popleft()[0])
        return self.open[0][0] if self.open else self._next

    def committable(self) -> OffsetAndMetadata:
        """The lowest offset unfinished, and in its metadata what the next owner must know."""
        lowest = self.lowest_unfinished()
        if not self.open:
            return OffsetAndMetadata(lowest, LIVES if self.live else "")
        if self.live:
            in_hand, newest = self._in_hand, self.newest
        else:  # who was alone and made this process end has the third
            in_hand, newest = self._blamed, {offset for offset in self._blamed if self.is_suspect(offset)}
        metadata = encode(
            lowest,
            self.open[0][1],
            finished=(offset for offset in (*self._done, *self._finished_before) if offset > lowest),
            in_hand={offset: self._crashes.get(offset, 0) for offset in in_hand if offset >= lowest},
            known={
                offset: crashes
                for offset, crashes in self._crashes.items()
                if offset >= lowest and offset not in in_hand
            },
            lives=self.live,
            newest=newest,
        )
        return OffsetAndMetadata(lowest, metadata)
