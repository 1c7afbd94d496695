"""What stands beside the paragraphs of a DOCX file, put where it belongs: its reader sees paragraphs and tables only.

Notes come after the paragraph that refers to them, and so does what stands in a text box, after the paragraph that it
is anchored to. A file that is saved as "Strict Open XML" differs from others in the names of its namespaces.
Source: ISO/IEC 29500, parts 1 and 4.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from lxml import etree

from parsing.archives import read

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"  # the same once more, for others
_DOCUMENT, _RELATIONS = "word/document.xml", "_rels/.rels"
_NOTES = (("word/footnotes.xml", f"{_W}footnoteReference"), ("word/endnotes.xml", f"{_W}endnoteReference"))
_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/(\w+)")
_TRANSITIONAL = rb"http://schemas.openxmlformats.org/\1/2006/\2"
_MARKS = (b"txbxContent", b"footnoteReference", b"endnoteReference")
_UNREAD = re.compile(r"^word/(?:media|embeddings|fonts)/")


def with_asides(file: BinaryIO) -> BinaryIO:
    """The file, or one that says the same in plain paragraphs where it has anything beside them.

    Raises:
        PermanentError: A part of it is broken.
    """
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        document = read(archive, _DOCUMENT)
        is_strict = _RELATIONS in names and _STRICT.search(read(archive, _RELATIONS)) is not None
        if is_strict or any(mark in document for mark in _MARKS):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as plain:
                for name in dict.fromkeys(names):
                    if name != _DOCUMENT:
                        plain.writestr(name, b"" if _UNREAD.match(name) else _transitional(read(archive, name)))
                plain.writestr(_DOCUMENT, _in_line(archive, _transitional(document)))
    file.seek(0)
    return file


def _in_line(archive: zipfile.ZipFile, document: bytes) -> bytes:
    root = _parsed(document)
    notes = {
        (reference, note.get(f"{_W}id")): list(note)
        for part, reference in _NOTES
        if part in archive.namelist()
        for note in _parsed(_transitional(read(archive, part)))
        if note.get(f"{_W}type") is None  # the others are lines that part notes from text
    }
    for paragraph in list(root.iter(f"{_W}p")):
        if any(True for _ in paragraph.iterancestors(_FALLBACK)):
            continue
        beside: list[Any] = []
        for box in _own(paragraph, f"{_W}txbxContent"):
            beside += list(box)
        for _, reference in _NOTES:
            for referring in _own(paragraph, reference):  # a second time it is there already
                beside += notes.pop((reference, referring.get(f"{_W}id")), [])
        for element in reversed(beside):
            paragraph.addnext(element)
    made: bytes = etree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return made


def _own(paragraph: Any, tag: str) -> Iterator[Any]:
    """Those of the paragraph itself, not of one that is within it."""
    for element in paragraph.iter(tag):
        if next(element.iterancestors(f"{_W}p", _FALLBACK), None) is paragraph:
            yield element


def _transitional(content: bytes) -> bytes:
    return _STRICT.sub(_TRANSITIONAL, content)


def _parsed(content: bytes) -> Any:
    return etree.fromstring(content, etree.XMLParser(resolve_entities=False, no_network=True))
