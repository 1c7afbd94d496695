"""PDF files, page by page, by pypdf; it reads the text that a page holds, not its pictures.

It is not read strictly: half of the PDF files in use break a rule somewhere, and what a broken one can take is bounded.
"""

import logging
from collections.abc import Iterator
from typing import BinaryIO

from pypdf import PageObject, PdfReader, overwrite_configuration
from pypdf.errors import FileNotDecryptedError, LimitReachedError, PyPdfError
from pypdf.generic import StreamObject

from parsing.bounds import Bounds
from parsing.lines import headings, paragraphs
from parsing.pdf_spaces import put_in_place
from parsing.pieces import Piece, Portion
from parsing.refusals import empty, encrypted, scanned, too_large, unreadable

PAGES_PER_PORTION = 4
MAX_OUTLINE = 5_000
# pypdf goes on with whatever stands where something else should: what then fails is Python's own. No bug of ours is
# hidden by it for long: each page of the tests is read whole, and a document of which none is says so.
_BROKEN = (
    PyPdfError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, NotImplementedError,
    ArithmeticError, OSError, RecursionError,
)  # fmt: skip


def read_pdf(file: BinaryIO, bounds: Bounds) -> Iterator[Portion]:
    """The pages' paragraphs; what stands in the table of contents of the file is a heading on its page."""
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    put_in_place()
    overwrite_configuration(
        zlib_maximum_output_length=bounds.filter_bytes,
        lzw_maximum_output_length=bounds.filter_bytes,
        run_length_maximum_output_length=bounds.filter_bytes,
        brotli_maximum_output_length=bounds.filter_bytes,
        array_based_stream_maximum_output_length=bounds.filter_bytes,
        stream_decoding_work_maximum_length=4 * bounds.filter_bytes,
        page_tree_maximum_entries=2 * bounds.pages,
        outline_maximum_entries=MAX_OUTLINE,
        jbig2dec_binary=None,
        disable_legacy_handling=True,
    )
    reader, total = _open(file, bounds)
    outline = _outline(reader)
    waiting: list[Piece] = []
    letters, failed, pictures = 0, 0, False
    for number in range(1, total + 1):
        page, text = _page(reader, number - 1)
        if text is None:
            failed += 1
        else:
            pieces = [
                Piece(paragraph, number, level)
                for paragraph, level in headings(paragraphs(text), outline.get(number - 1, []))
            ]
            letters += sum(len(piece.text) for piece in pieces)
            waiting += pieces
        if page is not None and not text:
            pictures = _draws(page) or pictures
        _forget(reader)
        if number % PAGES_PER_PORTION == 0 or number == total:
            yield Portion(waiting, number, total)
            waiting = []
    if not letters:
        if failed:
            raise unreadable(f"none of its {total} pages can be read")
        raise scanned(total) if pictures else empty(f"its pages ({total}) are blank")


def _open(file: BinaryIO, bounds: Bounds) -> tuple[PdfReader, int]:
    try:
        reader = PdfReader(file)
        if reader.is_encrypted and not reader.decrypt(""):  # many are, with no password, against changes only
            raise encrypted()
        total = len(reader.pages)
    except FileNotDecryptedError:
        raise encrypted() from None
    except LimitReachedError as error:
        raise _limit(error) from None
    except _BROKEN as error:
        raise unreadable(f"the PDF is broken ({type(error).__name__})") from None
    if total == 0:
        raise unreadable("the PDF has no pages")
    if total > bounds.pages:
        raise too_large(f"it has {total} pages, and {bounds.pages} are read at most")
    return reader, total


def _page(reader: PdfReader, index: int) -> tuple[PageObject | None, str | None]:
    """A page and its text; None of a page that is broken: the others are read all the same."""
    try:
        page = reader.pages[index]
        return page, page.extract_text()
    except LimitReachedError as error:
        raise _limit(error) from None
    except MemoryError:
        raise
    except _BROKEN:
        return None, None


def _limit(error: LimitReachedError) -> Exception:
    del error  # its words speak of pypdf's settings
    return too_large("the PDF unpacks to more than a page holds, or nests deeper")


def _draws(page: PageObject) -> bool:
    """Whether there is anything on it, though it has no text: of a bomb pypdf says that it is empty."""
    try:
        contents = page.get_contents()
        return contents is not None and len(contents.get_data().strip()) > 0
    except LimitReachedError as error:
        raise _limit(error) from None
    except _BROKEN:
        return False


def _outline(reader: PdfReader) -> dict[int, list[tuple[str, int]]]:
    """By page (from 0): the titles of its table of contents, and how deep each is; none where it is broken."""
    found: dict[int, list[tuple[str, int]]] = {}

    def walk(entries: list[object], level: int) -> None:
        for entry in entries:
            if isinstance(entry, list):
                walk(entry, level + 1)
                continue
            index, title = reader.get_destination_page_number(entry), getattr(entry, "title", None)  # type: ignore[arg-type]
            if index is not None and title:
                found.setdefault(index, []).append((str(title), level))

    try:
        walk(list(reader.outline), 1)
    except _BROKEN:
        return {}
    return found


def _forget(reader: PdfReader) -> None:
    """What was unpacked is kept by pypdf; of a long document that is all of it, and none of it is asked for again."""
    objects = reader.resolved_objects
    for key in [key for key, kept in objects.items() if isinstance(kept, StreamObject)]:
        del objects[key]
