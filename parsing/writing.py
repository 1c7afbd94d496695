"""What the child says: text as people may read it, in lines of a bounded length."""

import json
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from parsing.bounds import LETTERS_PER_PAGE, MAX_PORTION_LETTERS, MAX_PORTION_PIECES, Bounds
from parsing.pieces import Piece, Portion
from parsing.refusals import too_large
from processors.errors import PermanentError
from processors.filter.normalize_text import clean

_LINE_ENDS = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"(?<=\S)[^\S\n]+")  # at the beginning of a line they may be code's
_EMPTY_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")


class Writer:
    """Cleans pieces, counts what came out, and writes it."""

    def __init__(self, out: BinaryIO, bounds: Bounds, *, allow_cpu: Callable[[float], None]) -> None:
        self._out, self._bounds, self._allow_cpu = out, bounds, allow_cpu
        self._waiting: list[Piece] = []
        self._waiting_letters = 0
        self._read, self._total = 0, None  # type: tuple[int, int | None]
        self.letters = self._pieces = 0

    def write(self, portion: Portion) -> None:
        """All of it, in as many lines as it takes."""
        for piece in portion.pieces:
            for part in _parts(piece):
                self.letters += len(part.text)
                self._pieces += 1
                if self.letters > self._bounds.letters:
                    raise too_large(f"it holds more than {self._bounds.letters:,} letters")
                if self._pieces > self._bounds.pieces:
                    raise too_large(f"it holds more than {self._bounds.pieces:,} paragraphs")
                self._waiting.append(part)
                self._waiting_letters += len(part.text)
                if len(self._waiting) == MAX_PORTION_PIECES or self._waiting_letters > MAX_PORTION_LETTERS:
                    self._say_pieces()
        self._read, self._total = portion.read, portion.total
        self._say_pieces()
        pages = max(portion.read, self.letters // LETTERS_PER_PAGE)
        self._allow_cpu(self._bounds.cpu_s + self._bounds.cpu_per_page_s * pages)

    def done(self) -> None:
        """It was read whole."""
        self._say({"done": True})

    def refuse(self, error: PermanentError) -> None:
        """It cannot be read."""
        self._waiting.clear()
        self._say({"code": error.code, "message": error.message})

    def _say_pieces(self) -> None:
        if self._waiting or self._read:
            self._say({"read": self._read, "total": self._total, "pieces": self._waiting})
            self._waiting, self._waiting_letters = [], 0

    def _say(self, what: object) -> None:
        self._out.write(json.dumps(what, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        self._out.flush()


def _parts(piece: Piece) -> Iterator[Piece]:
    """The piece without what nobody sees, cut where it is longer than a portion."""
    text = visible(piece.text)
    while len(text) > MAX_PORTION_LETTERS:
        cut = max(text.rfind(mark, MAX_PORTION_LETTERS // 2, MAX_PORTION_LETTERS) for mark in ("\n", " ", "。"))
        cut = cut + 1 if cut > 0 else MAX_PORTION_LETTERS
        if head := text[:cut].strip():
            yield piece._replace(text=head)
        text = text[cut:].strip()
    if text:
        yield piece._replace(text=text)


def visible(text: str) -> str:
    """NFC, without invisible, control and half characters; spaces in a row are one, and so are empty lines."""
    if not text.isascii() and _SURROGATES.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")  # two halves are a letter
    text = clean(_LINE_ENDS.sub("\n", text))
    return _EMPTY_LINES.sub("\n", _SPACES.sub(" ", text)).strip()
