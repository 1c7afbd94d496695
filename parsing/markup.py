"""HTML, Markdown and plain text, by `unstructured`."""

import re
from collections.abc import Iterator
from typing import BinaryIO

from parsing.decoding import decode
from parsing.elements import pieces_of
from parsing.file_type import tell_markup
from parsing.light_unstructured import put_in_place
from parsing.pieces import Piece, Portion
from parsing.refusals import unknown, unreadable

MAX_DEPTH = 240  # libxml2 drops what is deeper than 256 without a word
# Elements that are closed by themselves only; `<p>`, `<li>` and `<td>` need no end.
_NESTING = re.compile(
    r"<(/?)(?:div|span|table|section|article|main|blockquote|ul|ol|dl|b|i|u|em|strong|small|big|font|center|a|code)\b"
    r"[^<>]*?(/?)>",
    re.IGNORECASE,
)
WINDOW = 64 * 1024  # letters that are partitioned at once, so that memory does not grow with the document


def read_text(file: BinaryIO) -> Iterator[Portion]:
    """Whichever of the three it is. It has no pages."""
    raw = file.read()
    text = decode(raw, declares=raw[:1024].lstrip().startswith(b"<"))
    del raw
    if text is None:
        raise unknown("a file that is neither a document nor text")
    put_in_place()
    match tell_markup(text):
        case "html":
            yield Portion(of_html(text), 0, None)
        case "md":
            yield from _of_markdown(text)
        case _:
            yield from _of_plain(text)


def of_html(text: str, page: int | None = None) -> list[Piece]:
    """What a reader of it sees.

    Raises:
        PermanentError: It nests too deep.
    """
    if _is_too_deep(text):
        raise unreadable("it nests deeper than any document does, and what is deep in it would be lost")
    from unstructured.partition.html import partition_html  # heavy, and not for every file

    return list(pieces_of(partition_html(text=_without_declaration(text), languages=[""]), page=page))


def _is_too_deep(text: str) -> bool:
    depth = 0
    for ends, is_empty in _NESTING.findall(text):
        depth = max(0, depth - 1) if ends else depth + (not is_empty)
        if depth > MAX_DEPTH:
            return True
    return False


def _of_markdown(text: str) -> Iterator[Portion]:
    from unstructured.partition.md import partition_md

    for window in windows(text, fences=True):
        yield Portion(list(pieces_of(partition_md(text=window, languages=[""]))), 0, None)


def _of_plain(text: str) -> Iterator[Portion]:
    from unstructured.partition.text import partition_text

    for window in windows(text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n\n")):
        elements = partition_text(text=window, languages=[""])
        # What looks like a title to it is a short line: no heading of a text is known to be one.
        yield Portion([Piece(element.text) for element in elements], 0, None)


def windows(text: str, *, most: int = WINDOW, fences: bool = False) -> Iterator[str]:
    """The text in pieces of at most so many letters, cut between paragraphs where there is one, else where a line ends,
    else between words. `fences`: not within a block of code, where it does not fill a window.
    """
    at = 0
    while at < len(text):
        end = at + most
        if end < len(text):
            end = _cut(text, at, end, fences=fences)
        if window := text[at:end].strip("\n"):
            yield window
        at = end


def _cut(text: str, at: int, end: int, *, fences: bool) -> int:
    low = at + (end - at) // 2
    for mark in ("\n\n", "\n", "。", " "):
        found = text.rfind(mark, low, end)
        while fences and found > 0 and text.count("\n```", at, found) % 2:
            found = text.rfind(mark, low, text.rfind("\n```", at, found))
        if found > 0:
            return found + len(mark)
    return end


def _without_declaration(text: str) -> str:
    """lxml refuses a str that names an encoding."""
    start = text.lstrip("\ufeff \t\r\n")
    return start[start.find("?>") + 2 :] if start.startswith("<?xml") else start
