"""DOCX, PPTX and EPUB files, and archives that only look like them."""

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import docx
import pptx

CONTAINER = (
    '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
    '<rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)


def docx_of(blocks: Iterable[tuple[str, int | None]], *, table: Iterable[Iterable[str]] = ()) -> bytes:
    """Paragraphs, each with the level of its heading or None, and a table below."""
    document = docx.Document()
    for text, level in blocks:
        if level is None:
            document.add_paragraph(text)
        else:
            document.add_heading(text, level)
    rows = [list(row) for row in table]
    if rows:
        made = document.add_table(len(rows), len(rows[0]))
        for at, row in enumerate(rows):
            for column, text in enumerate(row):
                made.cell(at, column).text = text
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def pptx_of(slides: Iterable[tuple[str, str, str]]) -> bytes:
    """Slides: title, text, note."""
    presentation = pptx.Presentation()
    for title, text, note in slides:
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text
        if note:
            slide.notes_slide.notes_text_frame.text = note
    out = io.BytesIO()
    presentation.save(out)
    return out.getvalue()


def epub_of(chapters: Mapping[str, str], *, spine: Iterable[str], more: Mapping[str, str] | None = None) -> bytes:
    """Chapters by their file's name, in the order of the spine, which is seldom that of the archive."""
    items = "".join(
        f'<item id="c{at}" href="{name}" media-type="application/xhtml+xml"/>' for at, name in enumerate(chapters)
    )
    numbers = {name: at for at, name in enumerate(chapters)}
    order = "".join(f'<itemref idref="c{numbers[name]}"/>' for name in spine)
    package = (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/><manifest>'
        f"{items}</manifest><spine>{order}</spine></package>"
    )
    parts = {"META-INF/container.xml": CONTAINER, "OEBPS/content.opf": package}
    return zip_of(
        {"mimetype": "application/epub+zip", **parts}
        | {f"OEBPS/{name}": text for name, text in chapters.items()}
        | dict(more or {})
    )


def zip_of(entries: Mapping[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def with_entries(archive: bytes, entries: Mapping[str, str | bytes]) -> bytes:
    """The archive, with these entries in place of those of the same name."""
    with zipfile.ZipFile(io.BytesIO(archive)) as before:
        kept = {name: before.read(name) for name in before.namelist()}
    return zip_of(kept | dict(entries))


def kept(folder: Path, content: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path
