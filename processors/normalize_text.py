"""Text as people meant it: what is passed on, and what rules are matched against."""

import re
import unicodedata

# Zero-width, bidirectional, tag, variation and other marks that show nothing and hide words from rules.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]")
_JOINERS_IN_USE = re.compile(
    "(?<=[\u0600-\u06ff\u0900-\u0dff\U0001f000-\U0001faff\u2600-\u27bf\ufe0f])[\u200c\u200d\ufe0f]"
)
_SPACES = re.compile(r"\s+")
_COMBINING = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]")
_SPACED_LETTERS = re.compile(r"(?<!\w)\w(?:[ .\-_*|/]\w){3,}(?!\w)")
_SEPARATORS = re.compile(r"[ .\-_*|/]")
_LEET_HINT = re.compile(r"[a-zа-я][0134578@$!|]|[0134578@$!|][a-zа-я]")
_LEET = str.maketrans("0134578@$!|", "oieastbasii")
_LOOKS_LIKE_LATIN = str.maketrans("аеорсухіјѕԁһкмтвнαοερντικ", "aeopcyxijsdhkmtbhaoepvtik")


def clean(text: str) -> str:
    """What is passed on: NFC, one kind of line end, nothing invisible; spaces and indentation stay, for code's sake.

    Joiners stay where a script or an emoji needs them.
    """
    if text.isascii():
        visible = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
        return visible.strip()
    normal = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    kept = {match.start() for match in _JOINERS_IN_USE.finditer(normal)}
    visible = _INVISIBLE.sub(lambda match: match.group() if match.start() in kept else "", normal)
    return _CONTROL.sub("", visible).strip()


def variants(text: str) -> list[str]:
    """The spellings under which rules look for their words, plainest first, without repetition.

    1. NFKD without marks, lower case, white space folded; 2. look-alike letters made Latin; 3. leetspeak undone.
    """
    plain = fold(text)
    found = [plain]
    latin = plain
    if not plain.isascii():
        latin = plain.translate(_LOOKS_LIKE_LATIN)
        found.append(latin)
    if _LEET_HINT.search(plain):
        found.append(latin.translate(_LEET))
    return list(dict.fromkeys(found))


def spaced_letters(folded: str) -> str:
    """The letters of a folded text that stand one by one (`i g n o r e`), joined; empty where there are none."""
    return " ".join(_SEPARATORS.sub("", match.group()) for match in _SPACED_LETTERS.finditer(folded))


def fold(text: str) -> str:
    """Lower case, compatible letters made plain, marks and invisible characters gone, white space as one space."""
    if not text.isascii():
        text = _COMBINING.sub("", unicodedata.normalize("NFKD", _INVISIBLE.sub("", text)))
    return _SPACES.sub(" ", _CONTROL.sub("", text).casefold()).strip()
