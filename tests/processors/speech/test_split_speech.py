import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.speech.split_speech import split_speech


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("One. Two! Three?", ["One. Two!", "Three?"]),
        ('He said "no." Then he left.', ["He said", '"no."', "Then he", "left."]),
        ("a line\nanother", ["a line", "another"]),
        ("好。再见！走吧", ["好。 再见！ 走吧"]),
        ("version 3.14 is out", ["version", "3.14 is", "out"]),
        ("first part, second", ["first", "part,", "second"]),
        ("0123456789abcdef", ["0123456789", "abcdef"]),
        (" \n ", []),
    ],
)  # fmt: skip
def test_a_text_is_cut_at_sentences_else_at_commas_else_between_words(text: str, pieces: list[str]) -> None:
    assert split_speech(text, max_chars=10) == pieces


def test_sentences_stay_together_as_long_as_they_fit() -> None:
    assert split_speech("One. Two. Three.", max_chars=100) == ["One. Two. Three."]


@given(st.text(max_size=400), st.integers(1, 60))
def test_nothing_but_white_space_is_lost_and_no_piece_is_too_long(text: str, most: int) -> None:
    pieces = split_speech(text, max_chars=most)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(0 < len(piece) <= most and piece == piece.strip() for piece in pieces)


@pytest.mark.parametrize("text", ["." * 20_000, '…"' * 10_000, "a" * 20_000, ", " * 10_000, "。" * 20_000])
def test_no_text_takes_long(text: str) -> None:
    began = time.perf_counter()
    split_speech(text, max_chars=250)
    assert time.perf_counter() - began < 1
