"""EPUB files: the chapters in the order in which they are read, each as HTML. Source: EPUB 3.3, "Package Document"."""

import posixpath
import zipfile
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import unquote
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from parsing.archives import check_xml, open_archive, read
from parsing.bounds import Bounds
from parsing.decoding import decode
from parsing.light_unstructured import put_in_place
from parsing.markup import of_html
from parsing.pieces import Portion
from parsing.refusals import encrypted, too_large, unreadable

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_HTML_TYPES = {"application/xhtml+xml", "text/html", "application/x-dtbook+xml"}


def read_epub(file: BinaryIO, bounds: Bounds) -> Iterator[Portion]:
    """A page a chapter."""
    put_in_place()
    with open_archive(file, bounds) as archive:
        check_xml(archive, with_types=True)  # older ones name a document type
        chapters = list(_chapters(archive))
        if _are_encrypted(archive, set(chapters)):
            raise encrypted()
        if len(chapters) > bounds.pages:
            raise too_large(f"it has {len(chapters)} chapters, and {bounds.pages} are read at most")
        for number, name in enumerate(chapters, 1):
            text = decode(read(archive, name), declares=True)
            if text is None:
                raise unreadable(f"its chapter {number} is no text")
            yield Portion(of_html(text, number) if text.strip() else [], number, len(chapters))


def _chapters(archive: zipfile.ZipFile) -> Iterator[str]:
    package = next(
        (element.get("full-path") for element in _xml(archive, _CONTAINER).iter() if _name(element) == "rootfile"), None
    )
    if package is None:
        raise unreadable("it names no table of its parts")
    table = _xml(archive, package)
    items = {element.get("id"): element for element in table.iter() if _name(element) == "item"}
    folder, names = posixpath.dirname(package), set(archive.namelist())
    for reference in table.iter():
        if _name(reference) != "itemref":
            continue
        item = items.get(reference.get("idref"))
        if item is None or item.get("media-type") not in _HTML_TYPES:
            continue
        href = unquote((item.get("href") or "").partition("#")[0])
        name = posixpath.normpath(posixpath.join(folder, href))
        if name not in names:
            raise unreadable("a chapter that it names is missing")
        yield name


def _are_encrypted(archive: zipfile.ZipFile, chapters: set[str]) -> bool:
    """Fonts often are, which nobody reads."""
    if _ENCRYPTION not in archive.namelist():
        return False
    said = (element.get("URI") for element in _xml(archive, _ENCRYPTION).iter() if _name(element) == "CipherReference")
    return any(unquote(name) in chapters for name in said if name)


def _xml(archive: zipfile.ZipFile, name: str) -> Element:
    try:
        table: Element = fromstring(read(archive, name), forbid_entities=True, forbid_external=False)
    except (ParseError, DefusedXmlException, ValueError):
        raise unreadable("the table of its parts is broken") from None
    return table


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
