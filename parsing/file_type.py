"""Tells a file's type by its content. What it is called says nothing."""

import re
import zipfile
from collections.abc import Callable
from typing import BinaryIO, Literal

from parsing.refusals import empty, encrypted, unknown, unreadable

FileType = Literal["pdf", "docx", "pptx", "epub", "html", "md", "text"]
HEAD_BYTES = 64 * 1024
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_PARTS: tuple[tuple[str, FileType], ...] = (
    ("word/document.xml", "docx"), ("ppt/presentation.xml", "pptx"), ("META-INF/container.xml", "epub"),
)  # fmt: skip
_HTML = re.compile(
    r"\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--.*?-->\s*)*(?:<!doctype\s+html|<(?:html|head|body|title|meta|h[1-6]|p|div|table|ul"
    r"|ol|article|section|main|header|nav|br|span|a|b|i|script|style|link|center|font|form)(?:[\s/>]))",
    re.IGNORECASE | re.DOTALL,
)
_XML = re.compile(r"\s*<(?:\?xml|!doctype\s+(?!html))", re.IGNORECASE)
_ENTITY = re.compile(r"<!ENTITY", re.IGNORECASE)
# What tells Markdown from text, each by the line; text has one of them now and then.
_HEADING = re.compile(r"^#{1,6} +\S", re.MULTILINE)
_UNDERLINE = re.compile(r"^[^\s>#|*-][^\n]*\n(?:={3,}|-{3,})[ \t]*$", re.MULTILINE)
_MARKS = (
    re.compile(r"^ {0,3}(?:[-*+]|\d{1,3}[.)]) +\S", re.MULTILINE), re.compile(r"^(?:```|~~~)", re.MULTILINE),
    re.compile(r"^> ", re.MULTILINE), re.compile(r"\[[^\]\n]+\]\([^)\n]+\)"),
    re.compile(r"(?:\*\*|__)\S[^\n]*?\S?(?:\*\*|__)"),
    re.compile(r"^\|.+\|[ \t]*\n\|[ :|-]+\|", re.MULTILINE), re.compile(r"`[^`\n]+`"),
)  # fmt: skip
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"{\\rtf", "RTF"), (b"\x89PNG", "a PNG picture"), (b"\xff\xd8\xff", "a JPEG picture"), (b"GIF8", "a GIF picture"),
    (b"II*\0", "a TIFF picture"), (b"MM\0*", "a TIFF picture"), (b"BM", "a BMP picture"),
    (b"\x1f\x8b", "a gzip archive"), (b"BZh", "a bzip2 archive"), (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"), (b"\xfd7zXZ", "an xz archive"), (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x7fELF", "a program"), (b"MZ", "a program"), (b"ID3", "a sound"), (b"OggS", "a sound"), (b"fLaC", "a sound"),
    (b"RIFF", "a sound, film or picture"), (b"SQLite format 3\0", "a database"), (b"%!PS", "PostScript"),
)  # fmt: skip


def tell_type(file: BinaryIO) -> FileType:
    """What is to be read by which reader; `text` of all that may be one: the reader tells whether it is.

    Raises:
        PermanentError: It is of a type that is not read, encrypted, or empty.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if not head.strip(b"\0 \t\r\n\f"):
        raise empty("the file is empty")
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith(_ZIP):
        return _of_archive(file)
    if head.startswith(_OLE):
        if _holds(file, _ENCRYPTED_PACKAGE):
            raise encrypted()
        raise unknown("a file of an old office program (DOC, XLS, PPT)")
    for mark, name in _OTHERS:
        # Two letters stand at the beginning of many a text.
        if head.startswith(mark) and (len(mark) > 3 or b"\0" in head[:512] or not mark.isascii()):
            raise unknown(name)
    return "text"


def tell_markup(text: str) -> FileType:
    """HTML, Markdown or plain text.

    Raises:
        PermanentError: It is XML of another kind, or declares entities.
    """
    head = text[:HEAD_BYTES]
    if _HTML.match(head):
        refuse_entities(text)
        return "html"
    if _XML.match(head):
        raise unknown("XML that is no XHTML")
    kinds = sum(bool(mark.search(head)) for mark in _MARKS)
    headings = len(_HEADING.findall(head)) + len(_UNDERLINE.findall(head))
    return "md" if kinds >= 3 or (headings and kinds) or headings >= 2 or _starts_with_heading(head) else "text"


def refuse_entities(text: str) -> None:
    """Refuse HTML that declares entities of its own: they are made to grow, or to fetch what is not its own."""
    if _ENTITY.search(text[:HEAD_BYTES]):
        raise unreadable("it declares entities, as no document needs")


def _starts_with_heading(head: str) -> bool:
    lines = [line for line in head.splitlines()[:20] if line.strip()]
    return len(lines) > 1 and bool(_HEADING.match(lines[0])) and not _HEADING.match(lines[1])


def _of_archive(file: BinaryIO) -> FileType:
    try:
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):  # whatever zipfile makes of wrong fields
        raise unreadable("its archive is broken or was cut off") from None
    finally:
        file.seek(0)
    for part, kind in _PARTS:
        if part in names:
            return kind
    for prefix, name in (("xl/", "an XLSX table"), ("content.xml", "an OpenDocument file")):
        if any(found.startswith(prefix) for found in names):
            raise unknown(name)
    raise unknown("a ZIP archive")


def _holds(file: BinaryIO, wanted: bytes) -> bool:
    read: Callable[[], bytes] = lambda: file.read(1024 * 1024)  # noqa: E731
    before = b""
    while piece := read():
        if wanted in before + piece:
            return True
        before = piece[-len(wanted) :]
    return False
