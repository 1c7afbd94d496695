"""The quick ways through a text find what the plain ones do, letter by letter."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processors.filter import normalize_text
from processors.filter.normalize_text import clean, fold, fold_piece

LETTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab \n\té\u0301\u0323\u200dя中🅰🇷_-")
TEXTS = st.text(LETTERS, max_size=40)


@pytest.fixture
def _short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalize_text, "BLOCK_CHARS", 3)


@pytest.mark.usefixtures("_short_blocks")
@given(TEXTS)
@example("abcd\u0301e\u0301\u0323fg\u1100\u1161\u11a8")
@example("👩abcd\u200d👩")
def test_a_text_cleaned_in_blocks_is_as_it_is_cleaned_whole(text: str) -> None:
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    whole = normalize_text._NOT_IN_USE.sub("", unicodedata.normalize("NFC", plain)).strip()
    assert clean(text) == whole


@given(
    st.lists(st.sampled_from(["\u1f71", "\U0001d160", "\u0344", "\uf900", "\u212b"]) | TEXTS, max_size=60).map("".join)
)
@example("\u1f71\u0301" * 20)
@example("a\u0340\u0316" * 20)
def test_letters_that_compose_by_themselves_are_composed_as_any_others_are(text: str) -> None:
    assert normalize_text._composed(text) == unicodedata.normalize("NFC", text)


def test_there_is_no_letter_that_composes_and_is_not_known() -> None:
    composing = {code for code in range(0x110000) if not unicodedata.is_normalized("NFC", chr(code))}
    assert composing == set(normalize_text._COMPOSING)


@pytest.mark.usefixtures("_short_blocks")
@given(TEXTS)
def test_a_text_folded_in_blocks_is_as_its_letters_are(text: str) -> None:
    assert fold(text) == " ".join("".join(map(fold_piece, text)).split())


def test_every_letter_that_folds_is_known_from_the_start() -> None:
    """A letter that is not in the table stays as it is: all that change are in it."""
    for code in range(0x110000):
        letter = chr(code)
        if code not in normalize_text.FOLDING and unicodedata.normalize("NFKD", letter).casefold() != letter:
            raise AssertionError(hex(code))
    assert all(fold_piece(f"a{letter}b") == "ab" for letter in "\u3164\ufe00\ufeff\uffa0\ufff9\ud800\U000e0041")


@pytest.mark.parametrize("text", ["\U00020000" * 20_000, "".join(map(chr, range(0x4E00, 0x9000)))])
def test_letters_that_stay_as_they_are_leave_nothing_behind(text: str) -> None:
    before = len(normalize_text.FOLDING)
    assert fold(text) == text
    assert len(normalize_text.FOLDING) == before
