"""What cannot be read ends with one clear error, soon and with little memory; the next file is read."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from processors.documents.document_ports import Block
from tests.parsing import bombs
from tests.parsing.office_files import docx_of, epub_of, kept, with_entries, zip_of
from tests.parsing.pdf_files import pdf_of, pdf_with_content, scanned_pdf
from tests.parsing.reading import blocks_of, refusal_of
from tests.parsing.test_types import encrypted
from tests.waiting import until

DOCX = docx_of([("Text.", None)])
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 4096
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "billion laughs": (bombs.laughing_docx, "document-unreadable"),
    "billion laughs in utf-16": (bombs.laughing_docx_in_utf16, "document-unreadable"),
    "billion laughs in epub": (bombs.laughing_epub, "document-unreadable"),
    "billion laughs in a chapter": (bombs.laughing_chapter, "document-unreadable"),
    "billion laughs in html": (bombs.laughing_html, "document-unreadable"),
    "billion laughs in xml": (lambda: f"{bombs.LAUGHS}]><x>&j;</x>".encode(), "document-type-unknown"),
    "1000:1": (bombs.thousandfold_docx, "document-too-large"),
    "many small bombs": (bombs.many_small_bombs, "document-too-large"),
    "bomb among pictures": (bombs.bomb_among_pictures, "document-too-large"),
    "nested": (bombs.nested_docx, "document-unreadable"),
    "many entries": (bombs.crowded_docx, "document-too-large"),
    "entry outside": (lambda: bombs.docx_with_entry("word/../../../escaped"), "document-unreadable"),
    "absolute entry": (lambda: bombs.docx_with_entry("/tmp/escaped"), "document-unreadable"),
    "entry outside, of windows": (lambda: bombs.docx_with_entry("..\\..\\escaped"), "document-unreadable"),
    "link": (bombs.docx_with_link, "document-unreadable"),
    "flate": (bombs.flate_bomb, "document-too-large"),
    "flate twice": (bombs.twice_packed_bomb, "document-too-large"),
    "run length": (bombs.run_length_bomb, "document-too-large"),
    "lzw": (bombs.lzw_bomb, "document-too-large"),
    "circle of pages": (bombs.circle_of_pages, "document-unreadable"),
    "circle of tables": (bombs.circle_of_tables, "document-empty"),
    "circle of forms": (bombs.circle_of_forms, "document-scanned"),
}
REFUSED: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "document-empty", "empty"),
    "white space": (b" \r\n\t\n" * 50, "document-empty", "empty"),
    "docx without text": (docx_of([]), "document-empty", "no text"),
    "html without text": (b"<!doctype html><html><body><br></body></html>", "document-empty", "no text"),
    "blank pdf": (pdf_with_content(b""), "document-empty", "blank"),
    "scan": (scanned_pdf(3), "document-scanned", "assistant-stream[ocr]"),
    "pdf with a password": (encrypted(pdf_of(["secret"]), "x"), "document-encrypted", "without a password"),
    "docx with a password": (OLE + "EncryptedPackage".encode("utf-16-le"), "document-encrypted", "password"),
    "old office": (OLE, "document-type-unknown", "DOCX"),
    "png": (bombs.huge_png(8), "document-type-unknown", "PDF, DOCX, PPTX, EPUB, HTML, Markdown and plain text"),
    "xlsx": (zip_of({"xl/workbook.xml": "<x/>"}), "document-type-unknown", "XLSX"),
    "zip": (zip_of({"a.txt": "text"}), "document-type-unknown", "ZIP"),
    "deep html": (b"<html><body>" + b"<div>" * 300 + b"A text.", "document-unreadable", "nests deeper"),
    "noise": (bytes(range(256)) * 40, "document-type-unknown", "neither"),
    "cut pdf": (pdf_of(["A text."])[:300], "document-unreadable", "whole"),
    "cut docx": (DOCX[:-200], "document-unreadable", "whole"),
    "broken docx": (with_entries(DOCX, {bombs.DOCUMENT: "<w:document"}), "document-unreadable", "broken"),
    "docx of nothing": (zip_of({bombs.DOCUMENT: "<x/>"}), "document-unreadable", "cannot be read"),
    "epub without a chapter": (
        epub_of({"a.xhtml": "<p>a"}, spine=["a.xhtml"], more={"OEBPS/content.opf": "<package><spine/></package>"}),
        "document-empty",
        "no text",
    ),
    "epub with rights": (
        epub_of(
            {"a.xhtml": "<p>a"},
            spine=["a.xhtml"],
            more={"META-INF/encryption.xml": '<e><CipherReference URI="OEBPS/a.xhtml"/></e>'},
        ),
        "document-encrypted",
        "password",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refusal_says_what_to_do(tmp_path: Path, name: str) -> None:
    content, code, said = REFUSED[name]
    error = await refusal_of(kept(tmp_path, content, "file.pdf"))
    assert (error.code, said in error.message) == (code, True), error.message


@pytest.mark.parametrize("name", BOMBS)
async def test_bomb_is_refused_soon(tmp_path: Path, name: str) -> None:
    make, code = BOMBS[name]
    path = kept(tmp_path, make())
    began = time.monotonic()
    error = await refusal_of(path)
    assert error.code == code, error.message
    assert time.monotonic() - began < 60
    assert os.listdir(tmp_path) == ["file"]


async def test_next_file_is_read_and_nothing_of_a_bomb_is_left(tmp_path: Path) -> None:
    path = kept(tmp_path, bombs.thousandfold_docx())
    before = psutil.Process().memory_info().rss
    others = set(psutil.Process().children())  # services of the whole session
    for _ in range(3):
        await refusal_of(path)
    assert await blocks_of(kept(tmp_path, DOCX)) == [Block("Text.")]
    assert psutil.Process().memory_info().rss - before < 50 << 20
    await until(lambda: set(psutil.Process().children()) <= others)


async def test_entity_of_outside_is_not_fetched(tmp_path: Path) -> None:
    secret = kept(tmp_path, b"a secret of the machine", "secret")
    error = await refusal_of(kept(tmp_path, bombs.docx_with_outside_entity(str(secret))))
    assert error.code == "document-unreadable"
    assert "secret of" not in error.message


async def test_deep_html_is_read_or_refused(tmp_path: Path) -> None:
    path = kept(tmp_path, bombs.deep_html())
    try:
        assert [block.text for block in await blocks_of(path)] == ["deep"]
    except Exception as error:  # whichever it is, it is a clear one
        assert getattr(error, "code", "").startswith("document-")  # noqa: PT017
