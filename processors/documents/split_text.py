"""Cuts a text at the ends of its sentences, else between words, else between letters; in any script."""

import re
import unicodedata
from collections.abc import Callable, Iterator

Span = tuple[int, int]

# Full stops of scripts that put no space behind them, and of those that do.
_CLOSERS = "\"'”’»›)\\]}」』】〉》）"
_STOPS = ".!?…‽؟۔।॥։።၊။᙮᠃᠉"
# A run of stops is looked at once, from its beginning: tables of contents have long ones.
_END = re.compile(
    rf"[。！？｡︒．]+[{_CLOSERS}]*|(?<![{_STOPS}])[{_STOPS}]++[{_CLOSERS}]*+(?=\s)|[؟۔।॥။]+[{_CLOSERS}]*|\n+"
)  # fmt: skip
_LATIN_STOP = re.compile(rf"[.…][{_CLOSERS}]*$")
_LAST_WORD = re.compile(r"([^\W\d_]+(?:\.[^\W\d_]+)*)\.$")
_SHORTENED = (
    "mr mrs ms dr prof st vs etc no fig figs vol pp cf al inc ltd co corp jr sr sen rep gen rev est approx dept univ "
    "sec ch eq ed eds v "
    "jan feb mar apr jun jul aug sep sept oct nov dec bzw ca nr abb vgl usw sog art bd hrsg "
    "г гг в вв им т тт п пп стр рис табл см ср ул д кв тыс млн млрд руб коп др пр напр"
)
_ABBREVIATIONS = frozenset(_SHORTENED.split())
_WHITE = re.compile(r"\s+")
_PAUSE = re.compile(r"[,;:，、；：،؛]\s*|\s+[—–-]\s+")


def sentences(text: str) -> Iterator[Span]:
    """Where each begins and ends, without the white space around it. A line feed ends one, too."""
    start = 0
    for match in _END.finditer(text):
        end = match.end()
        if match.group().startswith("\n") or not _goes_on(text, start, end):
            if span := _trimmed(text, start, end):
                yield span
            start = end
    if span := _trimmed(text, start, len(text)):
        yield span


def pieces(text: str, span: Span, *, fits: Callable[[str], bool], guess: int) -> Iterator[Span]:
    """The span cut so that each piece fits: at a pause, between words, or between letters, the first that there is.

    `fits`: whether a text does; what fits, fits cut shorter, too. `guess`: about how many letters do.
    """
    start, end = span
    while start < end:
        cut = _longest(text, start, end, fits, guess)
        if piece := _trimmed(text, start, cut):
            yield piece
        start = cut
        while start < end and text[start].isspace():
            start += 1


def tail(text: str, span: Span, *, fits: Callable[[str], bool], guess: int) -> Span | None:
    """As much of the span's end as fits, from the beginning of a word; None where that is nothing."""
    start, end = span
    length = min(guess * 5 // 4 + 1, end - start)
    while length > 0:
        at = end - length
        if at > start and not text[at - 1].isspace():
            white = _WHITE.search(text, at, end)
            at = white.end() if white is not None else _whole_letter_from(text, at, end)
        if at >= end:
            return None
        if fits(text[at:end]):
            return at, end
        length = min(length, end - at) * 7 // 8
    return None


def _longest(text: str, start: int, end: int, fits: Callable[[str], bool], guess: int) -> int:
    length = end - start
    if length > guess:
        length = guess
    elif fits(text[start:end]):
        return end
    while True:
        cut = _cut(text, start, start + length) if start + length < end else end
        if fits(text[start:cut]) or cut - start <= 1:
            return cut
        length = max(1, min(length, cut - start) * 3 // 4)


def _cut(text: str, start: int, end: int) -> int:
    """The best place before `end`, in the last half."""
    low = start + (end - start) // 2
    for mark in (_PAUSE, _WHITE):
        last = None
        for last in mark.finditer(text, low, end):  # noqa: B007  # the last one is wanted
            pass
        if last is not None and last.end() > start:
            return last.end()
    return _whole_letter(text, start, end)


def _whole_letter(text: str, start: int, at: int) -> int:
    """The place at or before `at` that parts no letter from its marks."""
    place = at
    while place > start and place < len(text) and _joins(text, place):
        place -= 1
    return place if place > start else at


def _whole_letter_from(text: str, at: int, end: int) -> int:
    while 0 < at < end and _joins(text, at):
        at += 1
    return at


def _joins(text: str, at: int) -> bool:
    """Whether the letters before and after are one for a reader."""
    before, after = text[at - 1], text[at]
    if before == "\u200d" or after == "\u200d":
        return True
    if after > "\u02ff" and unicodedata.category(after)[0] == "M":
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\u1160" <= after <= "\u11ff":  # shades of skin; parts of Hangul
        return True
    if "\U0001f1e6" <= after <= "\U0001f1ff":  # flags are pairs
        first = at
        while first > 0 and "\U0001f1e6" <= text[first - 1] <= "\U0001f1ff":
            first -= 1
        return (at - first) % 2 == 1
    return False


def _goes_on(text: str, start: int, end: int) -> bool:
    """Whether a full stop ends no sentence: of an abbreviation, an initial, or before a small letter."""
    following = text[end : end + 12].lstrip()[:1]
    if following.islower():
        return True
    if not _LATIN_STOP.search(text[max(start, end - 8) : end]):
        return False
    word = _LAST_WORD.search(text[max(start, end - 24) : end])
    if word is None:
        return False
    said = word.group(1)
    return "." in said or (len(said) == 1 and said.isupper()) or said.casefold() in _ABBREVIATIONS


def _trimmed(text: str, start: int, end: int) -> Span | None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if start < end else None
