"""Each type is told by its content, and read with its pages and the levels of its headings."""

import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from pypdf import PdfReader, PdfWriter

from parsing.parser import ROOT
from processors.documents.document_ports import Block
from tests.parsing.bombs import huge_png
from tests.parsing.office_files import docx_of, epub_of, kept, pptx_of, with_entries
from tests.parsing.pdf_files import pdf_of, pdf_with_gaps
from tests.parsing.reading import blocks_of, pages_of

PAGES = (
    "1. Introduction\nThe quick brown fox jumps over the lazy dog and runs away from the exam-\n"
    "ple of a hound, then sleeps.\nAll is well.",
    "Глава вторая\nСъешь ещё этих мягких французских булок, да выпей чаю, потом ещё и\nещё раз, и ещё один.",
    "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，\n并应以兄弟关系的精神相对待。",
)


def encrypted(content: bytes, password: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(content)))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


PDF_BLOCKS = [
    Block("1. Introduction", 1, 1),
    Block(
        "The quick brown fox jumps over the lazy dog and runs away from the example of a hound, then sleeps.",
        1,
    ),
    Block("All is well.", 1),
    Block("Глава вторая", 2, 1),
    Block("Съешь ещё этих мягких французских булок, да выпей чаю, потом ещё и ещё раз, и ещё один.", 2),
    Block("人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。", 3),
]


@pytest.mark.parametrize("password", [None, ""])
async def test_pdf_is_read_page_by_page_with_the_headings_of_its_contents(tmp_path: Path, password: str | None) -> None:
    content = pdf_of(PAGES, outline=[("Introduction", 0), ("Глава вторая", 1)])
    if password is not None:  # as many are that may not be changed, and open for anyone
        content = encrypted(content, password)
    pages = await pages_of(kept(tmp_path, content, "picture.png"))
    assert [block for some in pages for block in some.blocks] == PDF_BLOCKS
    assert (pages[-1].read, pages[-1].total) == (3, 3)


async def test_pdf_whose_table_of_objects_points_elsewhere_is_read(tmp_path: Path) -> None:
    damaged = b"mail header\r\n\r\n" + pdf_of(PAGES)
    assert [block.text for block in await blocks_of(kept(tmp_path, damaged))] == [block.text for block in PDF_BLOCKS]


async def test_gaps_between_words_of_a_pdf_are_spaces_in_both_directions(tmp_path: Path) -> None:
    lines: list[list[str | int]] = [
        ["W", 60, "ords", -160, "of", -250, "on", -110, "e", -330, "line"],
        ["чтобы", -220, "все", -30, "го", -170, "хватало"],
        # As it is printed: the last word first, and a mark by a step back and one forward again.
        ["كرتيف", -250, "تلك", 194, "\u064f", -194, "ش", -290, "نكت", -160, "مل"],
        ["下", -150, "面", -170, "的模块", -200, "Linux", -180, "内核"],  # such letters are spread to fill a line
    ]
    found = " ".join(block.text for block in await blocks_of(kept(tmp_path, pdf_with_gaps(lines))))
    assert found == "Words of one line чтобы всего хватало لم تكن شُكلت فيترك 下面的模块Linux 内核"


async def test_docx_keeps_levels_and_tables(tmp_path: Path) -> None:
    content = docx_of(
        [("Права", 1), ("Все люди рождаются свободными.", None), ("Short line", None), ("Articles", 2), ("One.", None)],
        table=[["city", "people"], ["Гент", "263,927"]],
    )
    assert await blocks_of(kept(tmp_path, content, "file.pdf")) == [
        Block("Права", None, 1), Block("Все люди рождаются свободными."), Block("Short line"),
        Block("Articles", None, 2), Block("One."), Block("city | people\nГент | 263,927"),
    ]  # fmt: skip


def asides() -> dict[str, str]:
    """Parts of a DOCX file with what stands beside its paragraphs, which programs write twice, for older ones."""

    def paragraph(inside: str) -> str:
        return f"<w:p>{inside}</w:p>"

    def run(text: str) -> str:
        return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'

    def note(kind: str, number: int, text: str) -> str:
        return f'<w:{kind} w:id="{number}">{paragraph(run(text))}</w:{kind}>'

    names = (
        'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" xmlns:s="s"'
    )
    refer = '<w:r><w:{0}Reference w:id="{1}"/></w:r>'.format
    box = f"<w:txbxContent>{paragraph(run('In a box.') + refer('footnote', 2))}</w:txbxContent>"
    both = f'<mc:AlternateContent><mc:Choice Requires="s">{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback>'
    body = (
        paragraph(run("First.") + refer("footnote", 1) + refer("endnote", 1))
        + paragraph(run("Second.") + f"<w:r>{both}</mc:AlternateContent></w:r>" + refer("footnote", 1))
        + paragraph(run("Third."))
    )
    line = '<w:footnote w:type="separator" w:id="0"><w:p/></w:footnote>'
    feet = line + note("footnote", 1, "A note.") + note("footnote", 2, "A note of the box.")
    return {
        "word/document.xml": f"<w:document {names}><w:body>{body}</w:body></w:document>",
        "word/footnotes.xml": f"<w:footnotes {names}>{feet}</w:footnotes>",
        "word/endnotes.xml": f"<w:endnotes {names}>{note('endnote', 1, 'At the end.')}</w:endnotes>",
    }


async def test_notes_and_text_boxes_of_a_docx_stand_behind_their_paragraphs(tmp_path: Path) -> None:
    content = with_entries(docx_of([]), asides())
    assert [block.text for block in await blocks_of(kept(tmp_path, content))] == [
        "First.", "A note.", "At the end.", "Second.", "In a box.", "A note of the box.", "Third.",
    ]  # fmt: skip


async def test_a_docx_of_strict_open_xml_is_read(tmp_path: Path) -> None:
    content = docx_of([("Title", 1), ("A text.", None)])
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist() if name.endswith((".xml", ".rels"))}
    strict = {
        name: re.sub(
            r"http://schemas\.openxmlformats\.org/(?!package)(\w+)/2006/", r"http://purl.oclc.org/ooxml/\1/", part
        )
        for name, part in parts.items()
    }
    found = await blocks_of(kept(tmp_path, with_entries(content, strict)))
    assert [(block.text, block.level) for block in found] == [("Title", 1), ("A text.", None)]


async def test_slides_of_pptx_are_pages(tmp_path: Path) -> None:
    content = pptx_of([("First", "Point one\nPoint two", "said, not shown"), ("二", "要点。", "")])
    pages = await pages_of(kept(tmp_path, content))
    assert [block for some in pages for block in some.blocks] == [
        Block("First", 1, 1), Block("Point one", 1), Block("Point two", 1), Block("said, not shown", 1),
        Block("二", 2, 1), Block("要点。", 2),
    ]  # fmt: skip
    assert (pages[-1].read, pages[-1].total) == (2, 2)


HTML = """<!doctype html><html><head><title>not read</title><style>p {}</style></head><body><h1>One</h1>
<p>A <b>bold</b> start.</p><h2>Two</h2><ul><li>first<li>second</ul><table><tr><th>k<th>v<tr><td>1<td>2</table>
<pre>def f():
    return 1</pre><script>evil()</script><h3>Три</h3><p>&lt;конец&gt;</p></body></html>"""
HTML_BLOCKS = [
    Block("One", None, 1), Block("A bold start."), Block("Two", None, 2), Block("first"), Block("second"),
    Block("k | v\n1 | 2"), Block("def f():\n    return 1"), Block("Три", None, 3), Block("<конец>"),
]  # fmt: skip
MARKDOWN = (
    "# One\n\nA **bold** start.\n\n## Two\n\n- first\n- second\n\n| k | v |\n|---|---|\n| 1 | 2 |\n\n```python\n"
    "def f():\n    return 1\n```\n\n### Три\n\n&lt;конец&gt;\n"
)


@pytest.mark.parametrize(
    "content",
    [
        HTML.encode(), MARKDOWN.encode(), HTML.encode("utf-16"), MARKDOWN.replace("\n", "\r\n").encode("utf-8-sig"),
        HTML.replace("<head>", '<head><meta charset="koi8-r">').encode("koi8-r"),
    ],
    ids=["html", "markdown", "html in utf-16", "markdown of windows", "html that names its encoding"],
)  # fmt: skip
async def test_markup_keeps_levels_tables_and_code(tmp_path: Path, content: bytes) -> None:
    assert await blocks_of(kept(tmp_path, content, "file.docx")) == HTML_BLOCKS


async def test_chapters_of_epub_are_pages_in_their_order(tmp_path: Path) -> None:
    doctype = '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "x.dtd">'
    chapters = {
        "b.xhtml": f"{doctype}<html><body><h1>Second</h1><p>Конец.</p></body></html>",
        "a%20b.xhtml": "",
        "a b.xhtml": f"{doctype}<html><body><h1>First</h1><h2>Begin</h2><p>Text.</p></body></html>",
    }
    toc = '<!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "http://x.org/ncx.dtd"><ncx/>'
    content = epub_of(chapters, spine=["a%20b.xhtml", "b.xhtml"], more={"OEBPS/toc.ncx": toc})
    pages = await pages_of(kept(tmp_path, content))
    assert [block for some in pages for block in some.blocks] == [
        Block("First", 1, 1), Block("Begin", 1, 2), Block("Text.", 1), Block("Second", 2, 1), Block("Конец.", 2),
    ]  # fmt: skip
    assert (pages[-1].read, pages[-1].total) == (2, 2)


async def test_plain_text_of_any_length_loses_no_paragraph(tmp_path: Path) -> None:
    paragraphs = [f"Абзац {at} о том, что было, и о том, что будет дальше с ним." for at in range(4_000)]
    found = await blocks_of(kept(tmp_path, "\n\n".join(paragraphs).encode("cp1251")))
    assert [block.text for block in found] == paragraphs


async def test_what_nobody_sees_is_gone(tmp_path: Path) -> None:
    tags = "".join(chr(0xE0000 + ord(letter)) for letter in "ignore all")
    hidden = f"Pay{tags} the\u202e in\u200bvoi\u2060ce\u0007 \ud83d\ude00 of\x0cАнна\ufeff می\u200cخواهم."
    content = hidden.encode("utf-16-le", "surrogatepass").decode("utf-16-le").encode()
    assert [block.text for block in await blocks_of(kept(tmp_path, content))] == [
        "Pay the invoice 😀 of", "Анна می\u200cخواهم.",
    ]  # fmt: skip


async def test_big_picture_in_a_docx_is_not_unpacked(tmp_path: Path) -> None:
    content = with_entries(docx_of([("A picture of something.", None)]), {"word/media/image1.png": huge_png()})
    assert [block.text for block in await blocks_of(kept(tmp_path, content))] == ["A picture of something."]


def test_unstructured_comes_without_models_and_without_ways_out() -> None:
    """What it would download, guess with or call, it never meets: see light_unstructured."""
    code = (
        "import sys; from parsing.light_unstructured import put_in_place; put_in_place()\n"
        "from unstructured.partition import docx, pptx, html, md, text\n"
        "heavy = {'spacy', 'nltk', 'thinc', 'langdetect', 'httpx', 'urllib3', 'torch', 'pandas'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert not hasattr(sys.modules['requests'], 'Session')\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 120_000  # KiB; as it comes it is twice that
