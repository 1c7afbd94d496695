"""Text that comes piece by piece and may not hold certain strings: told as soon as none of them can begin in it.

What is held back is the shortest end of the text that may be the beginning of such a string; for most pieces that is
nothing. Each piece is looked at once, together with what is held, which is never longer than the longest string.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import re2

from processors.filter.normalize_text import fold_piece
from schemas.request_fields import without_unstorable

_SPACES = re.compile(" {2,}")


class Class(NamedTuple):
    """Between `least` and `most` letters of an RE2 class such as `[a-z]`."""

    letters: str
    least: int
    most: int


Part = str | Class
Parts = Sequence[Part]  # literals and classes, one after the other; the last class has a fixed length


class FoundError(Exception):
    """The text holds one of the strings. `what`: it, as it stands there."""

    def __init__(self, what: str) -> None:
        super().__init__("a string that may not be told")
        self.what = what


class Stage(Protocol):
    """One kind of strings that are looked for."""

    def told(self, piece: str) -> str:
        """What can be told now, of what was held and this piece.

        Raises:
            FoundError: It holds one of the strings; nothing more is to be told.
        """
        ...


class Strings:
    """Compiled once; `stage` begins a text.

    Each of `strings` is a sequence of parts. `before`: an RE2 class, one of whose letters, or the text's beginning,
    has to stand before each.
    """

    def __init__(self, strings: Sequence[Parts], *, before: str = "") -> None:
        whole = "|".join("".join(_source(part) for part in parts) for parts in strings)
        begun = "|".join(_beginnings(parts) for parts in strings)
        self.before = before
        self.whole = _compile(f"{before}(?:{whole})")
        self.begun = _compile(f"{before}(?:{begun})$")
        self.either = _compile(f"{before}(?:{whole}|(?:{begun})$)")
        self.skipped = 1 if before else 0

    def may_hold(self, text: str) -> bool:
        """False of nearly all pieces: there is none of them in it, and it ends with no beginning of one.

        As bytes: for a text the binding counts where its letters are, and takes four times as long.
        """
        return self.either.search(text.encode()) is not None

    def find(self, text: str, *, may: Callable[[str], bool]) -> str | None:
        """The first of them in a whole text, but for those that `may` be told."""
        searched = "\n" + text if self.before else text
        for match in self.whole.finditer(searched):
            what: str = match.group()[self.skipped :]
            if not may(what):
                return what
        return None


class RawStage:
    """Looks for strings letter by letter as they are."""

    def __init__(self, strings: Strings, *, may: Callable[[str], bool]) -> None:
        self._strings, self._may = strings, may
        self._held = ""
        self._before = "\n" if strings.before else ""

    def told(self, piece: str) -> str:
        """See `Stage`."""
        strings, context = self._strings, self._before
        window = context + self._held + piece
        if not strings.may_hold(window):
            told, self._held = window[len(context) :], ""
        else:
            at = 0
            for match in strings.whole.finditer(window):
                what = match.group()[strings.skipped :]
                if not self._may(what):
                    raise FoundError(what)
                at = match.end()
            begun = strings.begun.search(window, at)
            start = len(window) if begun is None else begun.start() + strings.skipped
            told, self._held = window[len(context) : start], window[start:]
        if strings.before and told:
            self._before = told[-1]
        return told


class FoldedStage:
    """Looks for folded strings in the folded text; what it tells is the text as it was."""

    def __init__(self, strings: Strings) -> None:
        self._strings = strings
        self._raw, self._folded = "", ""
        self._at: list[int] = []  # where in `_raw` each letter of `_folded` comes from

    def told(self, piece: str) -> str:
        """See `Stage`."""
        strings = self._strings
        folded = self._folded + fold_piece(piece)
        if not strings.may_hold(_SPACES.sub(" ", folded) if "  " in folded else folded):
            told, self._raw, self._folded, self._at = self._raw + piece, "", "", []
            return told
        self._take(piece)
        if (found := strings.whole.search(self._folded)) is not None:
            raise FoundError(found.group())
        begun = strings.begun.search(self._folded)
        if begun is None:
            told, self._raw, self._folded, self._at = self._raw, "", "", []
            return told
        start = begun.start()
        cut = self._at[start]
        told, self._raw, self._folded = self._raw[:cut], self._raw[cut:], self._folded[start:]
        self._at = [at - cut for at in self._at[start:]]
        return told

    def _take(self, piece: str) -> None:
        folded = [self._folded]
        last = self._folded[-1:]
        for at, letter in enumerate(piece, start=len(self._raw)):
            for one in fold_piece(letter):
                if one == " " and last == " ":
                    continue
                folded.append(one)
                self._at.append(at)
                last = one
        self._raw += piece
        self._folded = "".join(folded)


class HoldBack:
    """Several kinds of strings, one after the other. Pieces may end in half of a character: it waits for its other."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages
        self._half = ""

    def told(self, piece: str) -> str:
        """See `Stage`. Of what was told together, nothing is the beginning of a string that is looked for."""
        if not self._stages:
            return piece
        if not self._half and piece.isascii() and "\x00" not in piece:
            return self._through(piece)
        text = self._half + piece
        self._half = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
        return self._through(without_unstorable(text[: len(text) - len(self._half)]))

    def _through(self, text: str) -> str:
        for stage in self._stages:
            text = stage.told(text)
        return text


def _source(part: Part) -> str:
    if isinstance(part, str):
        return str(re2.escape(part))
    return f"{part.letters}{{{part.least},{part.most}}}"


def _beginnings(parts: Parts) -> str:
    """What is not the whole of it yet."""
    found, before = [], ""
    for number, part in enumerate(parts, start=1):
        is_last = number == len(parts)
        if isinstance(part, str):
            letters = part[:-1] if is_last else part
            nested = ""
            for letter in reversed(letters):
                nested = f"{re2.escape(letter)}(?:{nested})?" if nested else str(re2.escape(letter))
            if nested:
                found.append(before + nested)
        else:
            found.append(f"{before}{part.letters}{{0,{part.most - 1 if is_last else part.most}}}")
        before += _source(part)
    return "|".join(found)


def _compile(pattern: str) -> "re2._Regexp":
    options = re2.Options()
    options.log_errors, options.never_capture, options.max_mem = False, True, 32 << 20
    return re2.compile(pattern, options)
