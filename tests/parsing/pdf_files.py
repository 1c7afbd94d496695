"""PDF files made by hand, so that what is in them is known to the byte."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

FONT_LETTERS = 200  # of a font whose letters are numbered


@dataclass
class PdfFile:
    """Objects, numbered from 1, and the file that they make."""

    objects: list[bytes] = field(default_factory=list)

    def add(self, body: bytes) -> int:
        self.objects.append(body)
        return len(self.objects)

    def stream(self, content: bytes, entries: bytes = b"", *, packed: bool = True) -> int:
        if packed:
            content, entries = zlib.compress(content), entries + b" /Filter /FlateDecode"
        return self.add(b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), entries, content))

    def bytes(self, root: int) -> bytes:
        out, offsets = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), []
        for number, body in enumerate(self.objects, 1):
            offsets.append(len(out))
            out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
        start = len(out)
        out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(offsets) + 1)
        for offset in offsets:
            out += b"%010d 00000 n \n" % offset
        out += b"trailer\n<< /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(offsets) + 1, root, start)
        return bytes(out)


def pdf_of(pages: Sequence[str], *, outline: Sequence[tuple[str, int]] = ()) -> bytes:
    """A page of lines each; any script. `outline`: titles of the table of contents, and their pages, from 0."""
    file = PdfFile()
    catalog, tree = file.add(b""), file.add(b"")
    letters = "".join(sorted({letter for page in pages for letter in page if letter != "\n"}))
    codes = {letter: (at // FONT_LETTERS, at % FONT_LETTERS + 1) for at, letter in enumerate(letters)}
    fonts = [_font(file, letters[at : at + FONT_LETTERS]) for at in range(0, len(letters), FONT_LETTERS)]
    named = b" ".join(b"/F%d %d 0 R" % (at, font) for at, font in enumerate(fonts))
    numbers = []
    for page in pages:
        content = file.stream(_shown(page.split("\n"), codes))
        numbers.append(
            file.add(
                b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 595 842] /Contents %d 0 R /Resources << /Font << %s >> "
                b">> >>" % (tree, content, named)
            )
        )
    kids = b" ".join(b"%d 0 R" % number for number in numbers)
    file.objects[tree - 1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(numbers), kids)
    file.objects[catalog - 1] = b"<< /Type /Catalog /Pages %d 0 R %s >>" % (tree, _contents(file, outline, numbers))
    return file.bytes(catalog)


def pdf_with_content(content: bytes, entries: bytes = b"", *, packed: bool = True, resources: bytes = b"") -> bytes:
    """One page with that content stream."""
    file = PdfFile()
    catalog, tree = file.add(b"<< /Type /Catalog /Pages 2 0 R >>"), file.add(b"")
    stream = file.stream(content, entries, packed=packed)
    page = file.add(
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R /Resources << %s >> >>"
        % (stream, resources)
    )
    file.objects[tree - 1] = b"<< /Type /Pages /Count 1 /Kids [%d 0 R] >>" % page
    return file.bytes(catalog)


def pdf_with_gaps(lines: Sequence[Sequence[str | int]]) -> bytes:
    """A page of lines as TeX prints them: runs of letters as they stand from left to right, and by how many thousandths
    of their size the next one is moved back. Its font has no space, and another letter where one might be.
    """
    file = PdfFile()
    letters = "".join(sorted({letter for line in lines for run in line if isinstance(run, str) for letter in run}))
    table = _table(file, letters, code="%04x", most=b"ffff")
    font = (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H /ToUnicode %d 0 R /DescendantFonts "
        b"[<< /Type /Font /Subtype /CIDFontType0 /BaseFont /X /DW 500 /W [32 [1000]] >>] >>" % table
    )
    shown = [
        " ".join(
            str(run) if isinstance(run, int) else f"<{''.join(f'{letters.index(letter) + 1:04x}' for letter in run)}>"
            for run in line
        )
        for line in lines
    ]
    content = f"BT /F0 10 Tf 14 TL 50 800 Td {' '.join(f'[{line}] TJ T*' for line in shown)} ET".encode()
    catalog = file.add(b"<< /Type /Catalog /Pages %d 0 R >>" % (table + 2))
    tree = file.add(b"<< /Type /Pages /Count 1 /Kids [%d 0 R] >>" % (catalog + 2))
    file.add(
        b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 595 842] /Contents %d 0 R /Resources << /Font << /F0 %s >> >> >>"
        % (tree, tree + 2, font)
    )
    file.stream(content)
    return file.bytes(catalog)


def scanned_pdf(pages: int = 1) -> bytes:
    """Pages that are pictures."""
    file = PdfFile()
    catalog, tree = file.add(b"<< /Type /Catalog /Pages 2 0 R >>"), file.add(b"")
    entries = b"/Type /XObject /Subtype /Image /Width 8 /Height 8 /ColorSpace /DeviceGray /BitsPerComponent 8"
    picture = file.stream(bytes(range(64)), entries)
    content = file.stream(b"q 595 0 0 842 0 0 cm /Im0 Do Q")
    numbers = [
        file.add(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R /Resources << /XObject << /Im0 "
            b"%d 0 R >> >> >>" % (content, picture)
        )
        for _ in range(pages)
    ]
    kids = b" ".join(b"%d 0 R" % number for number in numbers)
    file.objects[tree - 1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (pages, kids)
    return file.bytes(catalog)


def _font(file: PdfFile, letters: str) -> int:
    table = _table(file, letters, code="%02x", most=b"ff")
    return file.add(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode %d 0 R >>" % table)


def _table(file: PdfFile, letters: str, *, code: str, most: bytes) -> int:
    """Which letter each number is, from 1."""
    lines = "".join(
        f"<{code % at}> <{letter.encode('utf-16-be').hex()}>\n" for at, letter in enumerate(letters, 1)
    ).encode()
    return file.stream(
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def\n1 begincodespacerange\n<%s> "
        b"<%s>\nendcodespacerange\n%d beginbfchar\n%sendbfchar\nendcmap end end"
        % (b"0" * len(most), most, len(letters), lines)
    )


def _shown(lines: Sequence[str], codes: dict[str, tuple[int, int]]) -> bytes:
    out = [b"BT 14 TL 50 800 Td"]
    for line in lines:
        runs: list[tuple[int, bytearray]] = []
        for letter in line:
            font, code = codes[letter]
            if not runs or runs[-1][0] != font:
                runs.append((font, bytearray()))
            runs[-1][1].append(code)
        out += [b"/F%d 10 Tf <%s> Tj" % (font, text.hex().encode()) for font, text in runs]
        out.append(b"T*")
    return b"\n".join([*out, b"ET"])


def _contents(file: PdfFile, outline: Sequence[tuple[str, int]], pages: Sequence[int]) -> bytes:
    if not outline:
        return b""
    root = file.add(b"")
    first = len(file.objects) + 1
    last = first + len(outline) - 1
    for at, (title, page) in enumerate(outline):
        said = title.encode("utf-16-be").hex().encode()
        following = b"/Next %d 0 R" % (first + at + 1) if first + at < last else b""
        file.add(b"<< /Title <feff%s> /Parent %d 0 R /Dest [%d 0 R /Fit] %s >>" % (said, root, pages[page], following))
    file.objects[root - 1] = b"<< /Type /Outlines /First %d 0 R /Last %d 0 R /Count %d >>" % (first, last, len(outline))
    return b"/Outlines %d 0 R" % root
