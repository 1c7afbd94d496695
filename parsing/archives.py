"""Zip archives, which DOCX, PPTX and EPUB files are: looked through before anything of them is unpacked."""

import lzma
import re
import stat
import zipfile
import zlib
from typing import BinaryIO
from xml.sax import SAXException
from xml.sax.handler import ContentHandler

from defusedxml.common import DefusedXmlException
from defusedxml.sax import make_parser

from parsing.bounds import MAX_ENTRY_NAME, MIB, Bounds
from parsing.refusals import encrypted, too_large, unreadable

READ_BYTES = 256 * 1024
_OUTSIDE = re.compile(r"(?:^|/)\.\.(?:/|$)|^/|^[A-Za-z]:|\\|\0")
# What office programs put in: a chart's table. None of it is ever opened here.
_NEVER_OPENED = re.compile(r"(?:^|/)embeddings/", re.IGNORECASE)
_ARCHIVES = (
    b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd",
)  # fmt: skip
# What zipfile raises: fields out of range, methods that it does not know, places before the beginning of the file.
_BROKEN = (zipfile.BadZipFile, ValueError, NotImplementedError, OSError)
_XML = (".xml", ".rels")


def open_archive(file: BinaryIO, bounds: Bounds) -> zipfile.ZipFile:
    """The archive, of which every entry is within the bounds.

    Raises:
        PermanentError: It is broken, a bomb, encrypted, or holds what does not belong into a document.
    """
    try:
        archive = zipfile.ZipFile(file)
    except _BROKEN as error:
        raise unreadable(f"its archive is broken ({_reason(error)})") from None
    entries = archive.infolist()
    if len(entries) > bounds.archive_entries:
        raise too_large(f"its archive has {len(entries)} entries, and {bounds.archive_entries} are unpacked at most")
    for entry in entries:
        _refuse_strange(entry)
    size = sum(entry.file_size for entry in entries)
    if size > bounds.archive_bytes:
        raise too_large(f"unpacked it takes {size // MIB} MiB, and {bounds.archive_bytes // MIB} MiB are unpacked")
    packed = file.seek(0, 2)
    _refuse_bomb(size, packed, bounds)
    for entry in entries:
        _refuse_bomb(entry.file_size, entry.compress_size, bounds)
        if not _NEVER_OPENED.search(entry.filename) and read(archive, entry, most=8).startswith(_ARCHIVES):
            raise unreadable("its archive holds another archive")
    return archive


def read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo | str, *, most: int = -1) -> bytes:
    """The entry's bytes, at most so many.

    Raises:
        PermanentError: It is broken, or not there.
    """
    try:
        with archive.open(entry) as opened:
            return opened.read(most)
    except KeyError:
        raise unreadable("its archive lacks a part") from None
    except (*_BROKEN, EOFError, RuntimeError, zlib.error, lzma.LZMAError) as error:  # bz2 has OSError
        raise unreadable(f"its archive is broken ({_reason(error)})") from None


def check_xml(archive: zipfile.ZipFile) -> None:
    """Read each XML part once with a parser that refuses document types, and with them entities.

    Raises:
        PermanentError: It declares entities or refers to what is outside, or a part is broken.
    """
    for entry in archive.infolist():
        if not entry.filename.lower().endswith(_XML) or _NEVER_OPENED.search(entry.filename):
            continue
        parser = make_parser()
        parser.setContentHandler(ContentHandler())
        parser.forbid_dtd = True
        try:
            with archive.open(entry) as opened:
                while piece := opened.read(READ_BYTES):
                    parser.feed(piece)
            parser.close()
        except DefusedXmlException:
            raise unreadable("its XML declares entities or a document type, as no document needs") from None
        except (SAXException, *_BROKEN, EOFError, RuntimeError, zlib.error, lzma.LZMAError) as error:
            raise unreadable(f"one of its parts is broken ({_reason(error)})") from None


def _refuse_strange(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    if len(name) > MAX_ENTRY_NAME or _OUTSIDE.search(name):
        raise unreadable("its archive holds an entry that leads outside of it")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise unreadable("its archive holds a link")
    if entry.flag_bits & 1:
        raise encrypted()


def _refuse_bomb(size: int, packed: int, bounds: Bounds) -> None:
    if size > MIB and size > packed * bounds.archive_ratio:
        raise too_large(f"it is packed more than {bounds.archive_ratio} times, as no document is")


def _reason(error: Exception) -> str:
    return type(error).__name__
