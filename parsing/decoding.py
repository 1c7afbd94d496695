"""Bytes to text: by their marks, by what they declare, else by what their letters look like."""

import codecs
import re

from charset_normalizer import from_bytes

SAMPLE_BYTES = 256 * 1024
FEW_CONTROLS, MAX_CONTROLS = 4, 0.01  # of a text's letters; of more, it is none
MAX_BROKEN = 0.01
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
# They look like others, and nobody has used them for documents.
_RARE = [
    "iso8859_3", "iso8859_10", "iso8859_14", "iso8859_16", "cp037", "cp1026", "cp1140", "cp273", "cp424", "cp500",
    "cp875", "hp_roman8", "mac_iceland", "mac_turkish", "mac_greek", "mac_latin2",
]  # fmt: skip
# Letters with marks, each line as some languages have them together; what is read in the wrong encoding has others.
_LATIN = ("cp1252", "cp1250", "iso8859_2", "cp1254")
_SIGNS = "«»„“”‘’–—…€°§·¿¡"
_LATIN_LETTERS = tuple(
    frozenset(letters + _SIGNS)
    for letters in (
        "àâæçéèêëîïôœùûüÿáíóúñ", "äöüßéàåæøõšž", "àèéìíîòóùúçñ", "ãáâàçéêíóôõúü", "áðéíóúýþæö", "ąćęłńóśźż",
        "áäčďéěíĺľňóôŕřšťúůýž", "áéíóöőúüű", "ăâîșşțţ", "čćđšž", "çğıöşüâîû\u0307",
    )
)  # fmt: skip
# Thai in one byte a letter. Its marks stand on consonants, which tells it from whatever else has such bytes.
_THAI, _ON_CONSONANTS = "cp874", re.compile("[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e]")
_OUT_OF_PLACE = re.compile(
    "(?<![\u0e01-\u0e2e\u0e31\u0e34-\u0e3a\u0e47-\u0e4e])[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e]"
    "|[\u0e40-\u0e44](?![\u0e01-\u0e2e])"
)
_READ_AS_LATIN = {*_LATIN, "latin_1", "iso8859_15", "iso8859_9", "cp1254", "iso8859_13", "iso8859_4", "cp1257"}
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_BYTE_CONTROLS = re.compile(_CONTROLS.pattern.encode())
_SHIFTED = b"\x1b$B"  # as Japanese mail is written, in seven bits
_DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{2,40})|<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{2,40})""", re.IGNORECASE)  # fmt: skip  # noqa: E501


def decode(raw: bytes, *, declares: bool = False) -> str | None:
    """The text; None where it is none. `declares`: what an HTML or XML text says of itself is tried, too."""
    text = _decode(raw, declares=declares)
    if text is None:
        return None
    sample = text[:SAMPLE_BYTES]
    if len(_CONTROLS.findall(sample)) > FEW_CONTROLS + len(sample) * MAX_CONTROLS:
        return None
    return text


def _decode(raw: bytes, *, declares: bool) -> str | None:
    for mark, name in _MARKS:
        if raw.startswith(mark):
            return raw.decode(name, "replace")
    if (wide := _without_mark(raw)) is not None:
        return raw.decode(wide, "replace")
    if raw.endswith(b"\0"):  # as a disk or a tape fills up a text; what has other controls, too, is none
        raw = raw.rstrip(b"\0")
        if not raw or _BYTE_CONTROLS.search(raw, 0, SAMPLE_BYTES):
            return None
    if raw.count(b"\0", 0, SAMPLE_BYTES) > FEW_CONTROLS:
        return None
    if declares and not _is_utf8(raw) and (declared := _declared(raw)) is not None:
        return declared
    if _SHIFTED in raw[:SAMPLE_BYTES]:
        return raw.decode("iso2022_jp_2", "replace")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return _nearly_utf8(raw) or _guessed(raw)


def _without_mark(raw: bytes) -> str | None:
    """UTF-16 or UTF-32 without its mark: every second byte of a space or line feed is 0."""
    head = raw[: SAMPLE_BYTES & ~3]
    if len(head) < 4 or (0 not in head and not _is_wide_cjk(head)):
        return None
    nulls = [head[at::4].count(0) * 4 / len(head) for at in range(4)]
    if len(raw) % 4 == 0:
        if min(nulls[0], nulls[1]) > 0.9 and nulls[3] < 0.1:
            return "utf-32-be"
        if min(nulls[2], nulls[3]) > 0.9 and nulls[0] < 0.1:
            return "utf-32-le"
    for name in ("utf-16-le", "utf-16-be"):
        try:
            text = head[: len(head) & ~1].decode(name, "ignore" if len(raw) > len(head) else "strict")
        except UnicodeDecodeError:
            continue
        plain = sum(text.count(letter) for letter in " \n,.。，、")
        if plain > len(text) * 0.01 and not _CONTROLS.search(text) and "\ufffe" not in text:
            return name
    return None


def _is_wide_cjk(head: bytes) -> bool:
    """UTF-16 of Chinese, Japanese or Korean without any space has no byte that is 0, but their full stops."""
    return any(mark in head for mark in ("。".encode("utf-16-le"), "。".encode("utf-16-be")))


def _declared(raw: bytes) -> str | None:
    match = _DECLARED.search(raw[:2048])
    if match is None:
        return None
    name = (match.group(1) or match.group(2)).decode("ascii")
    if name.lower().replace("-", "") in ("utf16", "utf32", "utf16le", "utf16be"):  # it could not have been read
        return None
    try:
        codec = codecs.lookup("gb18030" if name.lower() in ("gb2312", "gbk") else name)
        return raw.decode(codec.name) if codec._is_text_encoding else None
    except (LookupError, UnicodeDecodeError):
        return None


def _is_utf8(raw: bytes) -> bool:
    """Whatever it says of itself: hardly anything else is valid UTF-8, and pages are converted without being told."""
    try:
        return not raw.decode().isascii()
    except UnicodeDecodeError:
        return False


def _nearly_utf8(raw: bytes) -> str | None:
    """UTF-8 in which a few bytes are broken, as where a file was cut."""
    text = raw.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    whole = sum(letter > "\x7f" for letter in text[:SAMPLE_BYTES]) - broken
    return text.replace("\ufffd", "") if broken * 20 <= whole or (whole and broken == 1) else None


def _guessed(raw: bytes) -> str | None:
    if _is_thai(_sample(raw)):
        return raw.decode(_THAI, "replace")
    best = from_bytes(_sample(raw), cp_exclusion=_RARE).best()
    if best is None:
        return None
    name = best.encoding
    if name in _READ_AS_LATIN:
        name = _latin(_sample(raw), name)
    text = raw.decode(name, "replace")
    broken = text.count("\ufffd")
    return text.replace("\ufffd", "") if broken <= len(text) * MAX_BROKEN else None


def _is_thai(raw: bytes) -> bool:
    text = raw.decode(_THAI, "replace")
    marks, wrong = len(_ON_CONSONANTS.findall(text)), len(_OUT_OF_PLACE.findall(text))
    others = sum(letter > "\x7f" and not "\u0e01" <= letter <= "\u0e5b" for letter in text)
    return marks > 3 and wrong * 50 <= marks and others * 50 <= marks


def _latin(raw: bytes, guessed: str) -> str:
    """Which of the encodings of Latin letters it is: guessing mistakes one for another."""

    def fitting(name: str) -> int:
        marked = [letter for letter in raw.decode(name, "replace").lower() if letter > "\x7f"]
        fit = max(sum(letter in letters for letter in marked) for letters in _LATIN_LETTERS)
        return fit - 2 * (len(marked) - fit)

    return max((*_LATIN, guessed), key=fitting)


def _sample(raw: bytes) -> bytes:
    """Enough of it to tell by: of a long one the lines that are not ASCII."""
    if len(raw) <= SAMPLE_BYTES:
        return raw
    telling, size = [], 0
    for line in raw[: 16 * SAMPLE_BYTES].splitlines(keepends=True):
        if not line.isascii():
            telling.append(line)
            size += len(line)
            if size > SAMPLE_BYTES:
                break
    return b"".join(telling)[:SAMPLE_BYTES] if telling else raw[:SAMPLE_BYTES]
