"""Files that are made to take more than they are worth, or to lead somewhere else."""

import io
import os
import stat
import struct
import zipfile
import zlib

from tests.parsing.office_files import CONTAINER, docx_of, with_entries, zip_of
from tests.parsing.pdf_files import PdfFile, pdf_with_content

LAUGHS = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + at)} "{("&" + chr(97 + at) + ";") * 10}">' for at in range(9)
)
DOCUMENT = "word/document.xml"
WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def laughing_docx() -> bytes:
    text = f"{LAUGHS}]><w:document {WORD}><w:body><w:p><w:r><w:t>&j;</w:t></w:r></w:p></w:body></w:document>"
    return with_entries(docx_of([("x", None)]), {DOCUMENT: text})


def laughing_docx_in_utf16() -> bytes:
    text = f"{LAUGHS}]><w:document {WORD}><w:body><w:p><w:r><w:t>&j;</w:t></w:r></w:p></w:body></w:document>"
    said = text.replace('"1.0"?', '"1.0" encoding="utf-16"?').encode("utf-16")
    return with_entries(docx_of([("x", None)]), {DOCUMENT: said})


def docx_with_outside_entity(path: str) -> bytes:
    text = (
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file://{path}">]><w:document {WORD}><w:body><w:p><w:r>'
        "<w:t>&a;</w:t></w:r></w:p></w:body></w:document>"
    )
    return with_entries(docx_of([("x", None)]), {DOCUMENT: text})


def laughing_epub() -> bytes:
    return zip_of({"META-INF/container.xml": f"{LAUGHS}]>" + CONTAINER.partition("?>")[2].replace("1.0", "&j;")})


def laughing_html() -> bytes:
    declared = LAUGHS.removeprefix('<?xml version="1.0"?>').replace("<!DOCTYPE x", "<!DOCTYPE html")
    return f"{declared}]><html><body><p>&j;</p></body></html>".encode()


def thousandfold_docx(mib: int = 60) -> bytes:
    return with_entries(docx_of([("x", None)]), {DOCUMENT: b" " * (mib << 20)})


def many_small_bombs() -> bytes:
    return with_entries(docx_of([("x", None)]), {f"word/{at}.bin": bytes(1 << 20) for at in range(60)})


def bomb_among_pictures() -> bytes:
    """As a whole it is packed a few times only."""
    entries = {"word/media/a.png": os.urandom(4 << 20), DOCUMENT: b" " * (20 << 20)}
    return with_entries(docx_of([("x", None)]), entries)


def nested_docx() -> bytes:
    """As 42.zip is made: archives in archives."""
    inner = zip_of({"0": b"\0" * (1 << 20)})
    for _ in range(4):
        inner = zip_of({str(at): inner for at in range(16)})
    return with_entries(docx_of([("x", None)]), {"word/more.bin": inner})


def crowded_docx() -> bytes:
    return with_entries(docx_of([("x", None)]), {f"word/{at}": b"" for at in range(1_001)})


def docx_with_entry(name: str, *, mode: int = 0) -> bytes:
    out = io.BytesIO(docx_of([("x", None)]))
    with zipfile.ZipFile(out, "a") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, "/etc/passwd")
    return out.getvalue()


def docx_with_link() -> bytes:
    return docx_with_entry("word/link", mode=stat.S_IFLNK | 0o777)


def flate_bomb() -> bytes:
    return pdf_with_content(b"0 " * 20_000_000)


def twice_packed_bomb() -> bytes:
    packed = zlib.compress(zlib.compress(b"0 " * 100_000_000, 9), 9)
    return pdf_with_content(packed, b"/Filter [/FlateDecode /FlateDecode]", packed=False)


def run_length_bomb() -> bytes:
    return pdf_with_content(b"\x81 " * 400_000, b"/Filter /RunLengthDecode", packed=False)


def lzw_bomb() -> bytes:
    """Codes of 9 to 12 bits, each for a longer run of the same letter."""
    bits, width, following, codes = [], 9, 258, [256, 32]
    codes += range(258, 4094)
    for at, code in enumerate(codes * 9):
        if at % len(codes) == 0:
            width, following = 9, 258
        bits.append(f"{code:0{width}b}")
        if at % len(codes):
            following += at % len(codes) > 1
            width = 9 + sum(following >= edge - 1 for edge in (512, 1024, 2048))
    whole = "".join(bits) + f"{257:012b}"
    raw = int(whole.ljust(-(-len(whole) // 8) * 8, "0"), 2).to_bytes(-(-len(whole) // 8), "big")
    return pdf_with_content(raw, b"/Filter /LZWDecode", packed=False)


def circle_of_pages() -> bytes:
    file = PdfFile()
    root = file.add(b"<< /Type /Catalog /Pages 2 0 R >>")
    file.add(b"<< /Type /Pages /Count 2 /Kids [3 0 R 3 0 R] >>")
    file.add(b"<< /Type /Pages /Parent 2 0 R /Count 1 /Kids [2 0 R] >>")
    return file.bytes(root)


def circle_of_tables() -> bytes:
    content = pdf_with_content(b"")
    start = content.index(b"xref")
    return content.replace(b"/Root", b"/Prev %d /Root" % start)


def circle_of_forms() -> bytes:
    """A form that shows itself twice."""
    file = PdfFile()
    root = file.add(b"<< /Type /Catalog /Pages 2 0 R >>")
    file.add(b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>")
    file.add(
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << /XObject << /F 5 0 R >> >> >>"
    )
    file.stream(b"/F Do /F Do")
    file.stream(b"/F Do /F Do", b"/Type /XObject /Subtype /Form /Resources << /XObject << /F 5 0 R >> >>")
    return file.bytes(root)


def busy_pdf() -> bytes:
    """A page that takes minutes to read, though it stays within every bound of its format."""
    font = b"/Font << /F0 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"
    return pdf_with_content(b"BT /F0 9 Tf " + b"1 0 0 1 0 0 Tm(a)Tj " * 120_000 + b"ET", resources=font)


def huge_png(side: int = 30_000) -> bytes:
    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    row = bytes(side // 8 + 1)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = part(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + part(b"IDAT", packed) + part(b"IEND", b"")


def deep_html(levels: int = 100_000) -> bytes:
    return b"<!doctype html><body>" + b"<div>" * levels + b"deep" + b"</div>" * levels
