"""How a text can be read, in one byte a letter: what rules tell apart is fewer than 256 letters.

A text is folded into these bytes in one pass, and from there on each way to read it is a table of 256 bytes, which
takes a hundredth of the time that letters do. An automaton over them has no states within a letter.

| byte | letter |
|---|---|
| below 0x80 | of ASCII |
| 0x80, 0x81 | any other; a quotation mark or a dash as Russian has it |
| 0x82-0x9b | of another script, or in a box, and looks like a to z |
| 0xa0-0xbf | а to я |
| 0xc0-0xda | any other of Cyrillic: looks like no Latin one, or like a to z |
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import re2

from processors.filter.normalize_text import BLOCK_CHARS, FOLDING

_OTHER, _TYPOGRAPHIC, _LIKE_A, _RUSSIAN_A, _CYRILLIC = 0x80, 0x81, 0x82, 0xA0, 0xC0
_A, _CODE_OF_RUSSIAN_A, _RUSSIAN_LETTERS = ord("a"), ord("а"), 32
_IN_NO_TEXT = b"\x02"  # what a folded text never has, in a pattern for letters that it never has either
_ASKS = 1  # a question mark on the way: `encode` makes one of what it does not know


def _table(pairs: str) -> dict[int, str]:
    """`pairs`: a letter and what it looks like, again and again."""
    return {ord(pairs[at]): pairs[at + 1] for at in range(0, len(pairs), 2)}


# After NFKD, which has made full-width, mathematical, circled and squared letters plain, and lower case.
_LOOKS_LIKE_LATIN = _table(
    "аaеeоoрpсcуyхxіiјjѕsԁdһhкkмmтtвbнhӏlԛqԝwьbпnгrиuѵvҽeгrцu"  # Cyrillic
    "αaβbγyεeηnιiκkνvοoρpτtυuχxωwσoμu"  # Greek
    "օoսuոnհhցgզqյjѕsոnօo"  # Armenian
    "ıiłløođdħhŧtəeɑaɡgɩiʀrʙbᴀaᴄcᴅdᴇeꜰfɢgʜhɪiᴊjᴋkʟlᴍmɴnᴏoᴘpꜱsᴛtᴜuᴠvᴡwʏyᴢzǀlƖlꓲlꓳoꓮaꓰe"
)
# Letters in black circles and squares, and those of flags.
_BOXED = {first + n: chr(_A + n) for first in (0x1F150, 0x1F170, 0x1F1E6) for n in range(26)}
_LATIN = {**{code: letter for code, letter in _LOOKS_LIKE_LATIN.items() if code >= 0x80}, **_BOXED}
_LOOKS_LIKE_CYRILLIC = _table("aаeеoоpрcсyуxхkкmмtтbвhн0о3з4ч6б@а")
_LEET = _table("0o1i2z3e4a5s6g7t8b9g@a$s!i|ili")


def _byte(code: int) -> int:
    """Of a letter that folding leaves as it is."""
    if code < 0x80:
        return _ASKS if code == ord("?") else code
    if 0 <= code - _CODE_OF_RUSSIAN_A < _RUSSIAN_LETTERS:
        return _RUSSIAN_A + code - _CODE_OF_RUSSIAN_A
    looks_like = ord(_LATIN[code]) - _A if code in _LATIN else None
    if 0x400 <= code < 0x530 and chr(code).isalpha():
        return _CYRILLIC if looks_like is None else _CYRILLIC + 1 + looks_like
    if looks_like is not None:
        return _LIKE_A + looks_like
    return _TYPOGRAPHIC if chr(code) in "«»—–„“”’" else _OTHER


def _bytes() -> dict[int, int | str | None]:
    """As `FOLDING`, with bytes for letters; what is not in it is `_OTHER`."""
    found: dict[int, int | str | None] = {code: _byte(code) for code in _LATIN}
    for code, folded in FOLDING.items():
        if isinstance(folded, str):
            found[code] = "".join(chr(_byte(ord(letter))) for letter in folded)
        else:
            found[code] = None if folded is None else _byte(folded)
    return found


_BYTES = _bytes()
_OF_ASCII = bytes(one if isinstance(one := _BYTES[code], int) else 0 for code in range(0x80)).ljust(0x100, b"\0")
_GONE = bytes(code for code in range(0x80) if _BYTES[code] is None)
_ASKED = bytes.maketrans(bytes([ord("?"), _ASKS]), bytes([_OTHER]) + b"?")


def letters(text: str) -> bytes:
    """A text folded, as `fold` does it, in one byte a letter."""
    if text.isascii():
        return b" ".join(text.encode().translate(_OF_ASCII, _GONE).translate(_ASKED).split())
    blocks = (text[at : at + BLOCK_CHARS] for at in range(0, len(text), BLOCK_CHARS))
    read = (
        block.encode().translate(_OF_ASCII, _GONE)
        if block.isascii()
        else block.translate(_BYTES).encode("latin-1", "replace")
        for block in blocks
    )
    return b" ".join(b"".join(read).translate(_ASKED).split())


def letters_of(pattern: str) -> bytes:
    """A pattern over folded texts as one over their bytes, for RE2's Latin-1."""
    return b"".join(
        bytes([code if code < 0x80 else _byte(code)])
        if (code := ord(letter)) < 0x80 or _RUSSIAN_A <= _byte(code) < _CYRILLIC
        else _IN_NO_TEXT
        for letter in pattern
    )


def has_bytes(text: str) -> bool:
    """True of a folded text each of whose letters has a byte for itself: ASCII, а to я."""
    return all(letter.isascii() or _RUSSIAN_A <= _byte(ord(letter)) < _CYRILLIC for letter in text)


def has_words_of_other_scripts(text: str) -> bool:
    """True of a folded text with letters that are neither ASCII nor Cyrillic."""
    return any(0x80 <= byte < _RUSSIAN_A for byte in letters("".join(filter(str.isalnum, text))))


def _read_as(read: dict[int, str | int]) -> bytes:
    """A table of all bytes; `read`: those that are read as others."""
    found = bytearray(range(0x100))
    for byte, letter in read.items():
        found[byte] = letter if isinstance(letter, int) else ord(letter)
    return bytes(found)


def _as_latin() -> bytes:
    other: dict[int, str | int] = dict.fromkeys(range(0x80, 0x100), "?")
    alike = {first + n: _A + n for first in (_LIKE_A, _CYRILLIC + 1) for n in range(26)}
    return _read_as({**other, **alike, **{_byte(code): _LATIN[code] for code in _LATIN if code in _RUSSIAN_CODES}})


_RUSSIAN_CODES = range(_CODE_OF_RUSSIAN_A, _CODE_OF_RUSSIAN_A + _RUSSIAN_LETTERS)
_AS_LATIN = _as_latin()
_AS_CYRILLIC = _read_as({code: _byte(ord(letter)) for code, letter in _LOOKS_LIKE_CYRILLIC.items()})
_UNLEET = _read_as(dict(_LEET))
_WORDS = _read_as({code: " " for code in range(_RUSSIAN_A) if code >= 0x80 or not chr(code).isalnum()})
# What texts in Russian have, and no Latin one: without any other letter nothing reads as Latin.
_RUSSIAN = bytes(
    [*range(0x20, 0x41), *range(0x5B, 0x61), *range(0x7B, 0x7F), _TYPOGRAPHIC, *range(_RUSSIAN_A, _CYRILLIC)]
)


def _over_bytes(pattern: bytes) -> "re2._Regexp":
    options = re2.Options()
    options.encoding, options.never_capture = re2.Options.Encoding.LATIN1, True
    return re2.compile(pattern, options)


_MIXED_SCRIPT = _over_bytes(rb"[a-z0-9@][\xa0-\xbf]|[\xa0-\xbf][a-z0-9@]")
_APART = rb"[ .\-_*|/~+]"  # what may stand between letters that stand one by one
_LETTER = rb"[a-z0-9_\x82-\x9b\xa0-\xda]"
_SPACED = _over_bytes(rb"(?:^|S)[^ ]S[^ ]S[^ ]S[^ ](?:S|$)".replace(b"S", _APART))
_SPACED_LETTERS = re.compile(rb"(?<!L)L(?:SL){3,}(?!L)".replace(b"L", _LETTER).replace(b"S", _APART))
# Where they may begin.
_MAY_BEGIN = _over_bytes(
    rb"(?:^|[^a-z0-9_\x82-\x9b\xa0-\xda])L(?:SL){3}(?:[^a-z0-9\x82-\x9b\xa0-\xda]|$)".replace(b"L", _LETTER).replace(
        b"S", _APART
    )
)
_LOOKS = 50  # after so many, to go through the rest letter by letter is quicker
_SEPARATORS = re.compile(_APART)
_LEET_HINT = _over_bytes(rb"[a-z][0-9@$!|]|[0-9@$!|][a-z]|[0-9@$!|][ .\-_][a-z][ .\-_]")
_LEET_AT_AN_END = re.compile(rb"[!|](?![A-Za-z0-9])")

Of = Literal["all", "latin", "cyrillic", "mixed", "skeleton"]


@dataclass(frozen=True, slots=True)
class Spelling:
    """A way to read a text, in the bytes of above.

    Attributes:
        text: As it is read.
        of: Whose words are looked for. `all`: it is ASCII; `mixed`: made Cyrillic; `skeleton`: an l is an i.
    """

    text: bytes
    of: Of


def spellings(folded: bytes, *, with_leet: bool = True) -> Iterator[Spelling]:
    """How a folded text can be read, plainest first.

    1. as it is; 2. look-alike letters made Latin; 3. made Cyrillic, where a word mixes both; 4. leetspeak undone: a 1
    is an i or an l there, so both are one letter.
    """
    latin = b""
    if folded.isascii():
        yield Spelling(folded, "all")
        latin = folded
    else:
        yield Spelling(folded, "cyrillic")
        if folded.translate(None, _RUSSIAN):
            latin = folded.translate(_AS_LATIN)
            yield Spelling(latin, "latin")
        if _MIXED_SCRIPT.search(folded) is not None:
            yield Spelling(folded.translate(_AS_CYRILLIC), "mixed")
    if with_leet and _LEET_HINT.search(latin) is not None:
        yield Spelling(_LEET_AT_AN_END.sub(b" ", latin).translate(_UNLEET), "skeleton")


def made_cyrillic(folded: str) -> str:
    """A folded text as the spelling `mixed` reads it, in letters."""
    return folded.translate(_LOOKS_LIKE_CYRILLIC)


def skeleton(folded: str) -> str:
    """As leetspeak is read: see `Spelling`."""
    return folded.replace("l", "i")


def words(folded: bytes) -> bytes:
    """Its words, with a space between them; letters that are neither ASCII nor Cyrillic are none."""
    return b" ".join(folded.translate(_WORDS).split())


def may_have_spaced_letters(folded: bytes) -> bool:
    """False of nearly all texts: none of their letters stand one by one."""
    return _SPACED.search(folded) is not None


def spaced_letters(folded: bytes) -> bytes:
    """The letters of a folded text that stand one by one (`i g n o r e`), joined; empty where there are none."""
    return b" ".join(_SEPARATORS.sub(b"", run) for run in _runs_of_letters(folded))


def _runs_of_letters(folded: bytes) -> Iterator[bytes]:
    at = 0
    for _ in range(_LOOKS):
        if (begins := _MAY_BEGIN.search(folded, at)) is None:
            return
        at = begins.start()
        match = _SPACED_LETTERS.match(folded, at) or _SPACED_LETTERS.match(folded, at + 1)
        if match is not None:
            yield match.group()
        at = match.end() if match is not None else at + 1
    for match in _SPACED_LETTERS.finditer(folded, at):
        yield match.group()
