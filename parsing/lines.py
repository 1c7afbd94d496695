"""The lines of a printed page put together to paragraphs."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

SHORT = 0.7  # of a page's long lines: a shorter one ends its paragraph
_HYPHEN = re.compile(r"[^\W\d_]{2}[-\u00ad\u2010]$")
_LIST_ITEM = re.compile(r"^(?:[•‣◦⁃∙▪●○*–—-]\s|\(?\d{1,3}[.)]\s)")
NO_SPACES = re.compile(r"[\u2e80-\u303f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\u0e00-\u0eff\u1780-\u17ff]")
_NO_LETTERS = re.compile(r"[\W\d_]+")


def paragraphs(text: str) -> Iterator[str]:
    """They end where a line is empty, or shorter than the others are; a word that was parted is put together."""
    lines = [line.strip() for line in text.splitlines()]
    lengths = sorted(len(line) for line in lines if line)
    if not lengths:
        return
    short = lengths[len(lengths) * 9 // 10] * SHORT
    paragraph = ""
    for line in lines:
        if paragraph and (not line or _LIST_ITEM.match(line)):
            yield paragraph
            paragraph = ""
        if not line:
            continue
        paragraph = _joined(paragraph, line) if paragraph else line
        if len(line) < short:
            yield paragraph
            paragraph = ""
    if paragraph:
        yield paragraph


def _joined(before: str, line: str) -> str:
    if _HYPHEN.search(before) and line[:1].islower():
        return before[:-1] + line
    if NO_SPACES.match(before[-1]) and NO_SPACES.match(line):
        return before + line
    return f"{before} {line}"


def headings(found: Iterable[str], titles: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int | None]]:
    """Each paragraph with its level: of a title, where it says the same as one of them."""
    waiting = [(key, level) for title, level in titles if (key := _key(title))]
    for paragraph in found:
        key = _key(paragraph) if waiting and len(paragraph) < 300 else ""
        match = next((place for place, (title, _) in enumerate(waiting) if key and title == key), None)
        if match is None:
            yield paragraph, None
        else:
            yield paragraph, waiting.pop(match)[1]


def _key(text: str) -> str:
    """Its letters: numbers of sections stand in only one of the two."""
    return _NO_LETTERS.sub("", unicodedata.normalize("NFKC", text)).casefold()
