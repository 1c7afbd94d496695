"""Text as people meant it: what is passed on, and the spellings that rules are matched against.

All of it takes time that is linear in the text, whatever stands in it. So letters are folded one by one, and heaps of
marks are cut: to bring 20,000 of them into their canonical order takes half a second.
"""

import re
import unicodedata
from collections.abc import Iterator

import re2

# Zero-width, bidirectional, tag, variation and other marks that show nothing and hide words from rules.
_HIDING = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0e\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff"
)
_JOINERS = "\u200c\u200d\ufe0f"
_INVISIBLE = re.compile(f"[{_HIDING}{_JOINERS}]")
_CONTROLS = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f"
_CONTROL = re.compile(f"[{_CONTROLS}]")
_NOT_IN_USE = re.compile(
    f"[{_CONTROLS}{_HIDING}]|(?<![\u0600-\u06ff\u0900-\u0dff\U0001f000-\U0001faff\u2600-\u27bf\ufe0f])[{_JOINERS}]"
)
_COMBINING = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]")
# No language has as many on one letter. Source: UAX 15, "Stream-Safe Text Format".
_HEAP_OF_MARKS = re2.compile(r"\p{M}{31,}")
MAX_MARKS = 30
# Letters that compose to others by themselves, which a table says in a fifth of the time that `normalize` takes.
_COMPOSING = {
    code: composed
    for code in range(0x340, 0x30000)
    if not unicodedata.is_normalized("NFC", chr(code)) and (composed := unicodedata.normalize("NFC", chr(code)))
}
_MANY_COMPOSING = re2.compile(f"(?:[{(composing := ''.join(map(chr, _COMPOSING)))}][^{composing}]*){{16}}")
_WORD = re.compile(r"[^\W_]+")
KNOWN_LETTERS = 0x3100  # up to those of China and Korea, which are so many, and stay as they are
# Beyond those, as of Unicode 15; a test goes through all that there are.
_WITH_LETTERS_THAT_FOLD = (
    (0x3131, 0x3400),
    (0xA640, 0xA7FA),
    (0xAB5C, 0xE000),
    (0xF900, 0xFFFC),
    (0x10400, 0x10596),
    (0x10781, 0x107BB),
    (0x10C80, 0x10CB3),
    (0x1109A, 0x11130),
    (0x1134B, 0x1134D),
    (0x114BB, 0x115BC),
    (0x118A0, 0x11939),
    (0x16E40, 0x16E60),
    (0x1D15E, 0x1D1C1),
    (0x1D400, 0x1D800),
    (0x1E900, 0x1E922),
    (0x1EE00, 0x1EEBC),
    (0x1F100, 0x1F252),
    (0x1FBF0, 0x1FBFA),
    (0x2F800, 0x2FA1E),
    (0xE0000, 0xE1000),
)
BLOCK_CHARS = 512  # a text is gone through in blocks of so many: those that are ASCII are quick
_AN_ASCII_LETTER = re.compile("[\x00-\x7f]")
MAX_EXPANSION = 4  # letters that one stands for; the few that stand for more are ornaments


def _folded(code: int) -> str:
    """A code point as rules see it: lower case, compatible letters plain, no marks, white space as a space."""
    letter = chr(code)
    if letter.isspace() and letter not in "\u2028\u2029":
        return " "
    if 0xD800 <= code <= 0xDFFF or _INVISIBLE.match(letter) or _CONTROL.match(letter):  # halves of letters
        return ""
    plain = unicodedata.normalize("NFKD", letter)
    return _COMBINING.sub("", plain).casefold() if len(plain) <= MAX_EXPANSION else " "


def _folding() -> dict[int, int | str | None]:
    """How code points are read, letter by letter, so that a text folds as its pieces do; what is not in it stays.

    Whole from the start: to find out what a letter folds to takes more than ten times as long as to look it up, and a
    text may have 20,000 that nobody has used before. Of the letters that stay, those of the common scripts are in it,
    since what is there is found quicker than what is not.
    """
    folding: dict[int, int | str | None] = {}
    for first, end in ((0, KNOWN_LETTERS), *_WITH_LETTERS_THAT_FOLD):
        for code in range(first, end):
            folded = _folded(code)
            if len(folded) != 1:
                folding[code] = folded or None
            elif ord(folded) != code or code < KNOWN_LETTERS:
                folding[code] = ord(folded)
    return folding


FOLDING = _folding()


def clean(text: str) -> str:
    """What is passed on: NFC, one kind of line end, nothing invisible; spaces and indentation stay, for code's sake.

    Joiners stay where a script or an emoji needs them.
    """
    if text.isascii():
        visible = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
        return visible.strip()
    bounded = _without_heaps(text.replace("\r\n", "\n").replace("\r", "\n"))
    return "".join(
        _CONTROL.sub("", block) if block.isascii() else _NOT_IN_USE.sub("", _composed(block))
        for block in _blocks(bounded)
    ).strip()


def _composed(block: str) -> str:
    """In NFC."""
    if _MANY_COMPOSING.search(block.encode()) is not None:  # for a few it would not pay
        block = block.translate(_COMPOSING)
    return unicodedata.normalize("NFC", block)


def _blocks(text: str) -> Iterator[str]:
    """Its pieces, each but the first of which begins with an ASCII letter: that joins with nothing before it."""
    at = 0
    while at < len(text):
        found = _AN_ASCII_LETTER.search(text, at + BLOCK_CHARS)
        end = found.start() if found is not None else len(text)
        yield text[at:end]
        at = end


def _without_heaps(text: str) -> str:
    if _HEAP_OF_MARKS.search(text.encode()) is None:
        return text
    parts, at = [], 0
    for match in _HEAP_OF_MARKS.finditer(text):
        parts.append(text[at : match.start() + MAX_MARKS])
        at = match.end()
    return "".join([*parts, text[at:]]) if parts else text


def fold_piece(text: str) -> str:
    """As `fold`, with white space letter by letter: what two pieces fold to, their whole does."""
    return text.translate(FOLDING)


def fold(text: str) -> str:
    """Lower case, compatible letters made plain, marks and invisible characters gone, white space as one space."""
    if len(text) <= BLOCK_CHARS or text.isascii():
        return " ".join(text.translate(FOLDING).split())
    blocks = (text[at : at + BLOCK_CHARS].translate(FOLDING) for at in range(0, len(text), BLOCK_CHARS))
    return " ".join("".join(blocks).split())


def words_of_any_script(folded: str) -> list[str]:
    """The words of a folded text, without what stands between them."""
    return _WORD.findall(folded)
