"""What a text holds in another writing: base64, hex, escapes, entities, rot13, reversed, or cut by tags.

One level is undone: what is hidden twice is not found, and what is hidden once costs no more than the text itself,
since together the payloads of a text decode to no more letters than it has.
"""

import binascii
import codecs
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

import re2

MIN_LETTERS = 8  # shorter payloads say nothing
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}(?:\r?\n[A-Za-z0-9+/_-]{16,})*={0,2}")
_HEX = re.compile(r"[0-9A-Fa-f]{2}(?:[ :,]?[0-9A-Fa-f]{2}){11,}")
_MARKED_HEX = re.compile(r"(?:\\x[0-9A-Fa-f]{2}|0x[0-9A-Fa-f]{2}[ ,]*){6,}")
# Where the first of them begins, in a text whose letters beyond ASCII are question marks.
_FIRST_BASE64 = re2.compile(rb"[A-Za-z0-9+/_-]{16}")
_FIRST_HEX = re2.compile(rb"[0-9A-Fa-f]{2}(?:[ :,]?[0-9A-Fa-f]{2}){11}")
_FIRST_MARKED_HEX = re2.compile(rb"(?:\\x[0-9A-Fa-f]{2}|0x[0-9A-Fa-f]{2}[ ,]*){6}")
_HEX_NOISE = re.compile(r"0x|\\x|[ :,]")
_ESCAPES = re.compile(r"\\u([0-9A-Fa-f]{4})")
_ENTITIES = re.compile(r"&#(?:([0-9]{1,7})|[xX]([0-9A-Fa-f]{1,6}));?")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<!--|-->")
_URL_SAFE = str.maketrans("-_", "+/")
_LAYOUT = dict.fromkeys(map(ord, "\r\n\t"), " ")
_LINE_END = re.compile(r"[\r\n]")
# Words of plain English in rot13, and backwards: one of them is in any sentence that means something to a model.
_ROT13 = (
    "gur", "naq", "guvf", "lbhe", "lbh", "nyy", "vafgehpgvbaf?", "cebzcg", "flfgrz", "cerivbhf", "vtaber", "nobir",
)  # fmt: skip
_REVERSED = (
    "snoitcurtsni", "noitcurtsni", "tpmorp", "metsys", "suoiverp", "erongi", "drowssap", "evoba", " uoy", "uoy ",
    "ruoy", " eht ", "siht",
)  # fmt: skip


def _any_of(*patterns: str) -> "re2._Regexp":
    options = re2.Options()
    options.never_capture, options.case_sensitive = True, False
    return re2.compile("|".join(patterns), options)


_IN_ROT13 = rf"\b(?:{'|'.join(_ROT13)})\b"
_IS_ROT13, _IS_REVERSED = _any_of(_IN_ROT13), _any_of(*_REVERSED)
_HINT = _any_of(
    r"[a-z0-9+/_-]{16}|(?:[0-9a-f]{2}[ :,]){6}|\\[xu][0-9a-f]{2}|0x[0-9a-f]{2}[ ,]+0x|%[0-9a-f]{2}%|&#|<[a-z/!]",
    _IN_ROT13, *_REVERSED,
)  # fmt: skip


def hidden(text: str) -> Iterator[str]:
    """The texts that stand in it in another writing; nothing, after one look, for nearly all texts."""
    encoded = text.encode()
    if _HINT.search(encoded) is None:
        return
    ascii_only = text.encode("ascii", "replace")
    payloads = [*_of_base64(text, ascii_only), *_of_hex(text, ascii_only)]
    if payloads:
        yield "\n".join(payloads)
    plain = text
    if "%" in text:
        plain = unquote_to_bytes(plain).decode(errors="ignore")
    if "&#" in text:
        plain = _ENTITIES.sub(_letter_of_entity, plain)
    if "\\u" in text:
        plain = _ESCAPES.sub(lambda match: chr(int(match.group(1), 16)), plain)
    if "<" in text:
        plain = _TAG.sub("", plain)
    if plain != text:
        yield plain
    is_rot13, is_reversed = _IS_ROT13.search(encoded) is not None, _IS_REVERSED.search(encoded) is not None
    if is_rot13 or is_reversed:
        latin = text if text.isascii() else text.encode("ascii", "ignore").decode()  # their words are English
        if is_rot13:
            yield codecs.encode(latin, "rot13")
        if is_reversed:
            yield latin[::-1]


def _letter_of_entity(match: "re.Match[str]") -> str:
    decimal, hexadecimal = match.groups()
    code = int(decimal) if decimal else int(hexadecimal, 16)
    return chr(code) if code < 0x110000 else ""


def _all_of(
    pattern: "re.Pattern[str]", first: "re2._Regexp", text: str, ascii_only: bytes
) -> "Iterator[re.Match[str]]":
    found = first.search(ascii_only)
    return iter(()) if found is None else pattern.finditer(text, found.start())


def _of_base64(text: str, ascii_only: bytes) -> Iterator[str]:
    for match in _all_of(_BASE64, _FIRST_BASE64, text, ascii_only):
        payload = _LINE_END.sub("", match.group()).rstrip("=").translate(_URL_SAFE)
        payload = payload[: len(payload) - (len(payload) % 4 == 1)]
        try:
            raw = binascii.a2b_base64(payload + "=" * (-len(payload) % 4))
        except binascii.Error:
            continue
        yield from _readable(raw)


def _of_hex(text: str, ascii_only: bytes) -> Iterator[str]:
    plain = _all_of(_HEX, _FIRST_HEX, text, ascii_only)
    marked = _all_of(_MARKED_HEX, _FIRST_MARKED_HEX, text, ascii_only)
    for match in sorted([*plain, *marked], key=lambda one: one.start()):
        digits = _HEX_NOISE.sub("", match.group())
        yield from _readable(bytes.fromhex(digits[: len(digits) & ~1]))


def _readable(raw: bytes) -> Iterator[str]:
    """The text, if it is one."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        if len(raw) < 2 or (raw[0] and raw[1]):
            return
        text = raw.decode("utf-16", "ignore")  # as PowerShell has it
    if len(text) >= MIN_LETTERS and (text.isprintable() or text.translate(_LAYOUT).isprintable()):
        yield text
