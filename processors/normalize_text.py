"""Text as people meant it: what is passed on, and the spellings that rules are matched against.

All of it takes time that is linear in the text, whatever stands in it. So letters are folded one by one, and heaps of
marks are cut: to bring 20,000 of them into their canonical order takes half a second.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import re2

# Zero-width, bidirectional, tag, variation and other marks that show nothing and hide words from rules.
_HIDING = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0e\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff"
)
_JOINERS = "\u200c\u200d\ufe0f"
_INVISIBLE = re.compile(f"[{_HIDING}{_JOINERS}]")
_NOT_IN_USE = re.compile(
    f"[{_HIDING}]|(?<![\u0600-\u06ff\u0900-\u0dff\U0001f000-\U0001faff\u2600-\u27bf\ufe0f])[{_JOINERS}]"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]")
_COMBINING = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]")
# No language has as many on one letter. Source: UAX 15, "Stream-Safe Text Format".
_HEAP_OF_MARKS = re2.compile(r"\p{M}{31,}")
MAX_MARKS = 30
_SPACED_LETTERS = re.compile(r"(?<!\w)\w(?:[ .\-_*|/~+]\w){3,}(?!\w)")
_SPACED_HINT = re2.compile(r"(?:^|[ .\-_*|/~+])[^ ][ .\-_*|/~+][^ ][ .\-_*|/~+][^ ][ .\-_*|/~+][^ ](?:[ .\-_*|/~+]|$)")
_SEPARATORS = re.compile(r"[ .\-_*|/~+]")
_WORD = re.compile(r"[^\W_]+")
_NO_WORD = {code: " " for code in range(128) if not chr(code).isalnum()}
_LEET_HINT = re2.compile(r"[a-z][0-9@$!|]|[0-9@$!|][a-z]|[0-9@$!|][ .\-_][a-z][ .\-_]")
_LEET_AT_AN_END = re.compile(r"[!|](?![^\W_])")
# Without any other letter nothing reads as Latin: Cyrillic has no g.
_NOT_RUSSIAN = re2.compile("[^а-я -@\\[-`{-~«»—–…№„“”’]")
_MIXED_SCRIPT = re2.compile("[a-z0-9@][а-я]|[а-я][a-z0-9@]")
MAX_KEPT_CODE = 0x20000  # tables are filled as they are used, and there are a million code points above
MAX_EXPANSION = 4  # letters that one stands for; the few that stand for more are ornaments


class _Folding(dict[int, str | None]):
    """A code point as rules see it: lower case, compatible letters plain, no marks, white space as a space.

    Filled as it is used; letter by letter, so that a text folds as its pieces do.
    """

    def __missing__(self, code: int) -> str | None:
        letter = chr(code)
        if letter.isspace() and letter not in "\u2028\u2029":
            folded = " "
        elif 0xD800 <= code <= 0xDFFF or _INVISIBLE.match(letter) or _CONTROL.match(letter):  # halves of letters
            folded = ""
        else:
            plain = unicodedata.normalize("NFKD", letter)
            folded = _COMBINING.sub("", plain).casefold() if len(plain) <= MAX_EXPANSION else " "
        if code < MAX_KEPT_CODE:
            self[code] = folded or None
        return folded or None


_FOLDING = _Folding()
for _code in range(128):  # the ASCII part whole, so that translate takes its quick way
    _FOLDING[_code]


def _table(pairs: str) -> dict[int, str]:
    """`pairs`: a letter and what it looks like, again and again."""
    return {ord(pairs[at]): pairs[at + 1] for at in range(0, len(pairs), 2)}


# After NFKD, which has made full-width, mathematical, circled and squared letters plain, and lower case.
_LOOKS_LIKE_LATIN = _table(
    "аaеeоoрpсcуyхxіiјjѕsԁdһhкkмmтtвbнhӏlԛqԝwьbпnгrиuѵvҽeгrцu"  # Cyrillic
    "αaβbγyεeηnιiκkνvοoρpτtυuχxωwσoμu"  # Greek
    "օoսuոnհhցgզqյjѕsոnօo"  # Armenian
    "ıiłløođdħhŧtəeɑaɡgɩiʀrʙbᴀaᴄcᴅdᴇeꜰfɢgʜhɪiᴊjᴋkʟlᴍmɴnᴏoᴘpꜱsᴛtᴜuᴠvᴡwʏyᴢzǀlƖlꓲlꓳoꓮaꓰe"
) | {0x1F150 + n: chr(97 + n) for n in range(26)} | {0x1F170 + n: chr(97 + n) for n in range(26)} | {
    0x1F1E6 + n: chr(97 + n) for n in range(26)
}  # fmt: skip


class _Latin(dict[int, str]):
    """What looks Latin as what it looks like, and any other letter as one that no rule speaks of."""

    def __missing__(self, code: int) -> str:
        if code < MAX_KEPT_CODE:
            self[code] = "?"
        return "?"


_LATIN = _Latin(_LOOKS_LIKE_LATIN | {code: chr(code) for code in range(128)})
_LOOKS_LIKE_CYRILLIC = _table("aаeеoоpрcсyуxхkкmмtтbвhн0о3з4ч6б@а")
_LEET = _table("0o1i2z3e4a5s6g7t8b9g@a$s!i|ili")


def clean(text: str) -> str:
    """What is passed on: NFC, one kind of line end, nothing invisible; spaces and indentation stay, for code's sake.

    Joiners stay where a script or an emoji needs them.
    """
    if text.isascii():
        visible = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
        return visible.strip()
    bounded = _without_heaps(text.replace("\r\n", "\n").replace("\r", "\n"))
    normal = unicodedata.normalize("NFC", bounded)
    return _CONTROL.sub("", _NOT_IN_USE.sub("", normal)).strip()


def _without_heaps(text: str) -> str:
    parts, at = [], 0
    for match in _HEAP_OF_MARKS.finditer(text):
        parts.append(text[at : match.start() + MAX_MARKS])
        at = match.end()
    return "".join([*parts, text[at:]]) if parts else text


def fold_piece(text: str) -> str:
    """As `fold`, with white space letter by letter: what two pieces fold to, their whole does."""
    return text.translate(_FOLDING)


def fold(text: str) -> str:
    """Lower case, compatible letters made plain, marks and invisible characters gone, white space as one space."""
    return " ".join(text.translate(_FOLDING).split())


@dataclass(frozen=True, slots=True)
class Spelling:
    """A way to read a folded text. `of`: whose words are looked for; `all`: it is ASCII; `skeleton`: an l is an i."""

    text: str
    of: Literal["all", "latin", "cyrillic", "skeleton"]


def spellings(folded: str, *, with_leet: bool = True) -> Iterator[Spelling]:
    """How a folded text can be read, plainest first.

    1. as it is; 2. look-alike letters made Latin; 3. made Cyrillic, where a word mixes both; 4. leetspeak undone: a 1
    is an i or an l there, so both are one letter.
    """
    if folded.isascii():
        yield Spelling(folded, "all")
        latin = folded
    else:
        yield Spelling(folded, "cyrillic")
        latin = ""
        if _NOT_RUSSIAN.search(folded) is not None:
            latin = folded.translate(_LATIN)
            yield Spelling(latin, "latin")
        if _MIXED_SCRIPT.search(folded) is not None:
            yield Spelling(_as_cyrillic(folded), "cyrillic")
    if with_leet and _LEET_HINT.search(latin) is not None:
        yield Spelling(_LEET_AT_AN_END.sub(" ", latin).translate(_LEET), "skeleton")


def _as_cyrillic(folded: str) -> str:
    for code, letter in _LOOKS_LIKE_CYRILLIC.items():  # they are few: quicker than translate
        folded = folded.replace(chr(code), letter)
    return folded


def skeleton(folded: str) -> str:
    """As leetspeak is read: see `Spelling`."""
    return folded.replace("l", "i")


def words(spelling: str) -> list[str]:
    """Its words, without what stands between them."""
    return spelling.translate(_NO_WORD).split() if spelling.isascii() else _WORD.findall(spelling)


def spaced_letters(folded: str) -> str:
    """The letters of a folded text that stand one by one (`i g n o r e`), joined; empty where there are none."""
    if _SPACED_HINT.search(folded) is None:
        return ""
    return " ".join(_SEPARATORS.sub("", match.group()) for match in _SPACED_LETTERS.finditer(folded))
