"""Pages of manuals as documents, from what Debian's packages `manpages` and `manpages-ru` install; none is kept here.

The second are translations of the first, so each page is there in both languages. Licences, as the packages state them:
those of the Linux man-pages (verbatim copies, GPL-2+, BSD and others, page by page), the translations GPL-3+.
"""

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from processors.documents.document_ports import Block

Language = Literal["en", "ru"]
MOST_LETTERS = 2_400  # of a page: some 600 tokens; the model makes vectors of some hundred tokens a second
QUESTIONS = Path(__file__).parent / "questions.txt"

_COMMENT = re.compile(r"^[.']\\\".*$", re.MULTILINE)
_MACRO = re.compile(r"^[.'](\S*) ?(.*)$")
_FONT = re.compile(r"\\f(?:\[[A-Z]*\]|\(..|.)|\\s[+-]?\d|\\&|\\c|\\/|\\,|\\:|\\%|\\\^|\\\|")
_LETTERS = {
    r"\-": "-", r"\ ": " ", r"\e": "\\", r"\(aq": "'", r"\(dq": '"', r"\(bu": "*", r"\(em": "—", r"\(en": "–",
    r"\(co": "©", r"\(ti": "~", r"\(ha": "^", r"\(lq": "“", r"\(rq": "”", r"\(Fo": "«", r"\(Fc": "»",
}  # fmt: skip
_LEFT = re.compile(r"\\[*(\[]\S{1,2}\]?|\\.")
# What says nothing of a page's matter: its title line, layout, and tables' formats.
_SKIPPED = {
    "TH", "so", "nh", "hy", "ad", "ft", "ne", "in", "ta", "de", "if", "ie", "el", "nr", "ds", "rr", "T&", "EX",
    "EE", "nf", "fi", "RS", "RE", "PD", "sp", "br", "PP", "P", "LP", "TS", "TE", "UR", "UE", "MT", "ME",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """`page`: the one that answers it, in either language."""

    page: str
    language: Language
    text: str


def questions() -> list[Question]:
    """All of them, in the file's order: of each page two in English and two in Russian."""
    found: list[Question] = []
    for line in QUESTIONS.read_text().splitlines():
        if line and not line.startswith("#"):
            page, *texts = line.split(" | ")
            languages: tuple[Language, ...] = ("en", "en", "ru", "ru")
            found += [Question(page, language, text) for language, text in zip(languages, texts, strict=True)]
    return found


def blocks(root: Path, page: str) -> tuple[Block, ...]:
    """The beginning of a page, `root` being the folder of its language's manuals.

    Raises:
        FileNotFoundError: Says which packages are wanted.
    """
    section = page.rpartition(".")[2]
    path = next((root / f"man{section}").glob(f"{page}*"), None)
    if path is None:
        raise FileNotFoundError(f"{root} has no page {page}: install manpages and manpages-ru, or name where they are")
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode(errors="replace")
    made: list[Block] = []
    letters = 0
    for block in _blocks(text):
        if letters + len(block.text) > MOST_LETTERS and made:
            break
        made.append(block)
        letters += len(block.text)
    return tuple(made)


def _blocks(text: str) -> Iterator[Block]:
    """Headings and paragraphs, without what only says how they look."""
    open_: list[str] = []
    for line in _COMMENT.sub("", text).splitlines():
        macro = _MACRO.match(line)
        name, words = macro.groups() if macro is not None else ("", line)
        if name in ("SH", "SS", "PP", "P", "LP", "TP", "IP", "HP", "TQ", "sp") and open_:
            yield Block(" ".join(open_))
            open_ = []
        if name in ("SH", "SS"):
            yield Block(_plain(words).strip('"'), level=1 if name == "SH" else 2)
        elif name not in _SKIPPED and (said := _plain(words.replace('"', " ") if name else words)):
            open_.append(said)
    if open_:
        yield Block(" ".join(open_))


def _plain(line: str) -> str:
    line = _FONT.sub("", line)
    for written, letter in _LETTERS.items():
        line = line.replace(written, letter)
    return " ".join(_LEFT.sub("", line).split())
