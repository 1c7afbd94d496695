"""DOCX and PPTX files, by `unstructured`. Pages of a DOCX are those that its program last printed, if it said so."""

from collections.abc import Iterator
from itertools import groupby
from typing import BinaryIO

from parsing.archives import check_xml, open_archive
from parsing.bounds import Bounds
from parsing.docx_asides import with_asides
from parsing.elements import pieces_of
from parsing.light_unstructured import put_in_place
from parsing.pieces import Piece, Portion


def read_docx(file: BinaryIO, bounds: Bounds) -> Iterator[Portion]:
    """Paragraphs, headings by their styles, tables, notes, text boxes."""
    put_in_place()
    _look_through(file, bounds)
    from unstructured.partition.docx import partition_docx

    pieces = list(pieces_of(partition_docx(file=with_asides(file), languages=[""], infer_table_structure=True)))
    last = max((piece.page or 0 for piece in pieces), default=0)
    yield Portion(pieces, last, last or None)


def read_pptx(file: BinaryIO, bounds: Bounds) -> Iterator[Portion]:
    """A page a slide, its title a heading, with what its speaker noted."""
    put_in_place()
    _look_through(file, bounds)
    from unstructured.partition.pptx import partition_pptx

    elements = partition_pptx(
        file=file, languages=[""], infer_table_structure=True, include_slide_notes=True, include_page_breaks=False
    )
    slides = [list(slide) for _, slide in groupby(pieces_of(elements), key=lambda piece: piece.page)]
    pieces = [piece for slide in slides for piece in _titled(slide)]
    last = max((piece.page or 0 for piece in pieces), default=0)
    yield Portion(pieces, last, last or None)


def _titled(slide: list[Piece]) -> list[Piece]:
    """Notes come first, and are to stand below the title."""
    title = next((place for place, piece in enumerate(slide) if piece.level is not None), 0)
    return slide[title:] + slide[:title]


def _look_through(file: BinaryIO, bounds: Bounds) -> None:
    with open_archive(file, bounds) as archive:
        check_xml(archive)
    file.seek(0)
