"""What an owner of a partition tells the next one beside the committed offset, in the commit's metadata.

Words between spaces, numbers in hex: the append time of the record at the committed offset; `L` while the owner lives
(one that left in order has taken it away); `n<gap>.<run>.<crashes>` for records in hand that have just begun,
`s<gap>.<run>.<crashes>` for others in hand, `k<gap>.<run>.<crashes>` for those beside them that were in hand when a
process died; `<gap>.<run>` for finished ones. Gaps count from the committed offset, then from the run before of the
same kind. What does not fit is left out: it is done again, at least once.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

MAX_BYTES = 3_500  # brokers refuse 4,097
MAX_IN_HAND_BYTES = 1_200  # of these, so that finished ones have their place
LIVES = "L"
CRASHES = "nsk"
# How often a death counts for a record in hand; ADR 6.
JUST_BEGUN_WEIGHS, IN_HAND_WEIGHS = 2, 1


@dataclass(frozen=True, slots=True)
class Told:
    """What the owner before has left.

    Attributes:
        finished: Offsets above the committed one.
        crashes: How many processes died with an offset in hand; one counts twice where it had just begun.
        crashed: The owner before did not leave in order.
    """

    finished: set[int] = field(default_factory=set)
    crashes: dict[int, int] = field(default_factory=dict)
    crashed: bool = False


def encode(
    lowest: int, append_time: int, *, finished: Iterable[int], in_hand: Mapping[int, int], known: Mapping[int, int],
    lives: bool, newest: Container[int] = (),
) -> str:  # fmt: skip
    """As it is committed with `lowest`, the lowest unfinished offset, and its append time in ms.

    `in_hand`, `known`: offset -> crashes so far; `finished`: offsets above `lowest`; `newest`: of those in hand.
    """
    words = [f"{append_time:x}"] + ([LIVES] if lives else [])
    size = sum(map(len, words)) + len(words)
    just_begun = {offset: count for offset, count in in_hand.items() if offset in newest}
    before = {offset: count for offset, count in in_hand.items() if offset not in newest}
    for kind, counts in zip(CRASHES, (just_begun, before, known), strict=True):
        for gap, run, count in _runs(lowest, ((offset, counts[offset]) for offset in sorted(counts))):
            word = f"{kind}{gap:x}.{run:x}.{count:x}"
            if size + len(word) + 1 > MAX_IN_HAND_BYTES:
                break
            words.append(word)
            size += len(word) + 1
    for gap, run, _ in _runs(lowest, ((offset, 0) for offset in sorted(finished))):
        word = f"{gap:x}.{run:x}"
        if size + len(word) + 1 > MAX_BYTES:
            break
        words.append(word)
        size += len(word) + 1
    return " ".join(words) if len(words) > 1 else ""


def decode(metadata: str, committed: int, first: int, append_time: int) -> Told:
    """What metadata committed with the offset `committed` says, where `first` is the first record delivered since."""
    words = metadata.split()
    try:
        stamp = int(words.pop(0), 16) if words and words[0] != LIVES else None
        crashed = LIVES in words
        if stamp is None or committed != first:
            return Told(crashed=crashed)
        if stamp != append_time:  # the topic was made anew, and the offsets mean other records
            return Told()
        finished = {offset for offset, _ in _spread(committed, "", words)}
        crashes = dict(_spread(committed, "k", words))
        # In hand when its owner died. An owner that left in order has named only those it died of.
        crashes |= {offset: count + IN_HAND_WEIGHS for offset, count in _spread(committed, "s", words)}
        crashes |= {offset: count + JUST_BEGUN_WEIGHS for offset, count in _spread(committed, "n", words)}
    except ValueError:  # not ours
        return Told()
    return Told(finished, crashes, crashed)


def _runs(lowest: int, marks: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """(gap, length, count) of neighbours with the same count, in order of offset."""
    at, start, stop, kept = lowest, -1, -1, 0
    for offset, count in marks:
        if start >= 0 and (offset != stop or count != kept):
            yield start - at, stop - start, kept
            at, start = stop, -1
        if start < 0:
            start, kept = offset, count
        stop = offset + 1
    if start >= 0:
        yield start - at, stop - start, kept


def _spread(lowest: int, kind: str, words: Iterable[str]) -> Iterator[tuple[int, int]]:
    """The offsets of the runs of a kind, each with its count."""
    at = lowest
    for word in words:
        if word == LIVES or (word[0] if word[0] in CRASHES else "") != kind:
            continue
        gap, run, *count = (int(number, 16) for number in word.removeprefix(kind).split("."))
        for offset in range(at + gap, at + gap + run):
            yield offset, count[0] if count else 0
        at += gap + run
