"""Text is read in whatever encoding it was written, and bytes that are none are told from it."""

import codecs
import os

import pytest

from parsing.decoding import decode
from parsing.file_type import tell_markup

TEXTS = {
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью "
    "и должны поступать в отношении друг друга в духе братства.\n",
    "Ukrainian": "Всі люди народжуються вільними і рівними у своїй гідності та правах. "
    "Вони наділені розумом і совістю.\n",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"
    "人人有资格享有本宣言所载的一切权利和自由。\n",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"
    "人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。\n",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. "
    "인간은 천부적으로 이성과 양심을 부여받았다.\n",
    "Arabic": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميراً وعليهم أن يعامل بعضهم بعضاً.\n",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Où ça? Là-bas, naïf.\n",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Größe, Äpfel, Öl, über „Maß“.\n",
    "Polish": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni "
    "rozumem i sumieniem i powinni postępować wobec innych w duchu braterstwa.\n",
    "Turkish": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler.\n",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม\n",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.\n",
    "Hebrew": "כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, "
    "לפיכך חובה עליהם לנהוג איש ברעהו ברוח של אחווה.\n",
}  # fmt: skip
UNICODE = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
OWN = {
    "Russian": ["windows-1251", "koi8-r", "cp866", "iso8859-5"], "Ukrainian": ["windows-1251", "koi8-u"],
    "Chinese": ["gb18030", "gbk"], "Japanese": ["shift_jis", "euc_jp", "iso2022_jp"], "Korean": ["euc_kr"],
    "Arabic": ["windows-1256"], "French": ["latin-1", "windows-1252"], "German": ["windows-1252"],
    "Polish": ["windows-1250", "iso8859-2"], "Greek": ["iso8859-7", "windows-1253"], "Hebrew": ["windows-1255"],
    "Turkish": ["windows-1254"], "Thai": ["tis-620", "cp874"],
}  # fmt: skip
CASES = [(language, encoding) for language in TEXTS for encoding in UNICODE + OWN[language]]


@pytest.mark.parametrize(("language", "encoding"), CASES)
def test_any_encoding(language: str, encoding: str) -> None:
    for text in (TEXTS[language], TEXTS[language] * 30):
        assert decode(text.encode(encoding)) == text


def test_telling_letters_may_come_late() -> None:
    text = "plain text, as of a program's log\n" * 20_000 + TEXTS["Russian"]
    assert decode(text.encode("windows-1251")) == text


def test_utf8_that_was_cut_is_utf8() -> None:
    raw = (TEXTS["Russian"] * 3).encode()
    assert decode(raw[:-2]) == (TEXTS["Russian"] * 3)[:-2]


def test_what_is_utf8_is_that_whatever_it_says_of_itself() -> None:
    for declared in ("windows-1251", "iso-8859-1", "utf-8"):
        page = f"<html><meta charset={declared}><p>{TEXTS['Russian']}"
        assert decode(page.encode(), declares=True) == page
    page = f"<meta charset=windows-1251><p>{TEXTS['Russian']}"
    assert decode(page.encode("windows-1251"), declares=True) == page


def test_a_few_zero_bytes_make_no_program_of_a_text() -> None:
    text = TEXTS["Russian"] * 3
    assert decode(text.encode() + bytes(5_000)) == text
    assert decode((text + "\0" + text).encode()) == text + "\0" + text
    assert decode((text + "\0" * 99 + text).encode()) is None


@pytest.mark.parametrize("raw", [os.urandom(9_000), bytes(9_000), bytes(range(256)) * 9, b"\x7fELF\2\1\1" + bytes(99)])
def test_what_is_no_text_is_told(raw: bytes) -> None:
    assert decode(raw) is None


def test_html_that_names_its_encoding_wrongly_is_read_all_the_same() -> None:
    text = f'<meta charset="utf-8"><p>{TEXTS["Russian"]}'
    assert decode(text.encode("windows-1251"), declares=True) == text
    assert decode(text.encode("utf-16"), declares=True) == text
    assert decode(codecs.BOM_UTF8 + text.encode(), declares=True) == text
    unknown = text.replace("utf-8", "base64")
    assert decode(unknown.encode(), declares=True) == unknown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A plain letter.\n\n- one point\n\nYours,\nAnna", "text"),
        ("#!/bin/sh\n# comment\necho 1\n", "text"),
        ("Price: 5 # 6\n\n2 * 3 * 4 = 24", "text"),
        ("# Title\n\nText.", "md"),
        ("Title\n=====\n\nText with `code`.", "md"),
        ("Some *words*, a [link](http://x.org), and\n\n- point\n- point\n\n```\ncode\n```\n", "md"),
        ("\n <!-- made by hand -->\n<HTML><p>x", "html"),
        ("<p>only a part</p>", "html"),
        ("<3 is a heart", "text"),
    ],
)
def test_markup_is_told_from_text(text: str, expected: str) -> None:
    assert tell_markup(text) == expected
