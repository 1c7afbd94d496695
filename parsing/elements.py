"""What `unstructured` found in a file, as pieces."""

from collections.abc import Iterable, Iterator
from typing import Any

from lxml import html

from parsing.pieces import Piece

MAX_LEVEL = 9
_NOT_READ = {"PageBreak", "Footer", "PageNumber"}


def pieces_of(elements: Iterable[Any], *, page: int | None = None) -> Iterator[Piece]:
    """One piece an element; tables row by row. `page`: of all of them; None: as each says."""
    for element in elements:
        if element.category in _NOT_READ:
            continue
        text = _table(element) if element.category == "Table" else element.text
        if text and text.strip():
            yield Piece(text, page or element.metadata.page_number, _level(element))


def _level(element: Any) -> int | None:
    """Only what its format marks as a heading is one."""
    if element.category != "Title" or element.metadata.category_depth is None:
        return None
    depth = int(element.metadata.category_depth)
    kind = element.metadata.filetype or ""
    if kind.endswith("wordprocessingml.document") and not _is_heading_style(element.metadata.style_name):
        return None
    if kind.endswith("presentationml.presentation") and depth > 0:  # the title of a slide is at 0
        return None
    return min(depth + 1, MAX_LEVEL)


def _is_heading_style(name: str | None) -> bool:
    return name is not None and (name == "Title" or name.startswith("Heading"))


def _table(element: Any) -> str:
    """A line a row, cells parted by bars, which is how models read tables."""
    markup = element.metadata.text_as_html
    if not markup:
        return str(element.text)
    rows = []
    for row in html.fragment_fromstring(markup, create_parent=True).iter("tr"):
        cells = [" ".join(cell.text_content().split()) for cell in row.iter("td", "th")]
        if any(cells):
            rows.append(" | ".join(cells))
    return "\n".join(rows) or str(element.text)
