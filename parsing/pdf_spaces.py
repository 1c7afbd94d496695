"""Spaces of a PDF that are no letters of it, but gaps within a line of letters.

pypdf takes a gap for a space where it is as wide as half a space of its font. Fonts that have none, as those of TeX,
are given some width or other, and words run together; and from right to left it adds but the first space of a line,
at its wrong end. Source: pypdf 7.1.1, `TextExtraction.process_tj_offset` (its issue 3978).
"""

from pypdf._text_extraction._text_extractor import TextExtraction

from parsing.lines import NO_SPACES

# Thousandths of the size of letters. Over manuals in ten languages letters of a word stand less than 120 apart
# (kerning), and words at least 160.
WORD_GAP = 140.0
_pypdfs_own = TextExtraction.process_tj_offset


def put_in_place() -> None:
    """From now on gaps are spaces; again does nothing."""
    TextExtraction.process_tj_offset = _gap  # type: ignore[method-assign]


def _gap(self: TextExtraction, offset: float, space_width: float) -> None:
    """`offset`: how far the next letter is moved back; `space_width`: what pypdf would take for a space."""
    before = self.text or self.output
    if before and NO_SPACES.match(before[-1]):  # such letters are spread to fill a line
        _pypdfs_own(self, offset, space_width)
        return
    wide = min(space_width, WORD_GAP)
    if not (self.rtl_dir and self.text):
        _pypdfs_own(self, offset, wide)
        return
    # A mark above a letter is set by a step back, and one forward again.
    back: float = getattr(self, "_stepped_back", 0.0)
    self._stepped_back = max(offset, 0.0)  # type: ignore[attr-defined]
    if -offset - back >= wide and self.text[0] not in " \n":  # what comes later stands before it
        self.text = " " + self.text
    self._actual_str_size["str_widths"] -= offset * self.font_size
