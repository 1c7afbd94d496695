"""Sentences of many scripts, and pieces of what has none."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.documents.split_text import pieces, sentences, tail


def said(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. Smith paid $3.50 to J. R. Jones, etc. on Jan. 5.", "He left!", "“Why?”", "Nobody knows…"],
        ["Все люди рождаются свободными, т.е. равными.", "А. С. Пушкин жил на ул. Мойка.", "Так ли это?", "Да!"],
        ["See fig. 3 and sec. 4.2 of v. 2.0, at 10.30 a.m. today.", "Next."],
        ["يولد جميع الناس أحراراً.", "هل هذا صحيح؟", "نعم، بالطبع."],
        ["सभी मनुष्य स्वतंत्र हैं।", "क्या यह सच है?", "हाँ।"],
        ["ሁሉም ሰው ነጻ ነው።", "እኩል ነው።"],
    ],
    ids=["English", "Russian", "numbers", "Arabic", "Hindi", "Amharic"],
)
def test_sentences_end_where_a_reader_says(expected: list[str]) -> None:
    assert said(" ".join(expected)) == expected


def test_sentences_without_spaces_between_them() -> None:
    expected = ["人人生而自由。", "他说：“这是真的吗？”", "是的！", "すべての人間は自由である。"]
    assert said("".join(expected)) == expected


def test_lines_are_sentences() -> None:
    assert said("city | people\nGhent | 263,927\n\n  x = 1\n") == ["city | people", "Ghent | 263,927", "x = 1"]


def cut(text: str, most: int) -> list[str]:
    return [
        text[start:end] for start, end in pieces(text, (0, len(text)), fits=lambda part: len(part) <= most, guess=most)
    ]


def test_pieces_end_at_pauses_then_between_words() -> None:
    assert cut("one two, three four five six seven", 14) == ["one two,", "three four", "five six seven"]


def test_pieces_part_no_letter_of_a_reader() -> None:
    family, flag, e = "👩‍👩‍👧‍👦", "🇧🇪", "e\u0301"
    for part in (family, flag, e):
        text = part * 9
        found = cut(text, len(part) + 1 if part != flag else 3)
        assert "".join(found) == text
        assert all(len(piece) % len(part) == 0 for piece in found)


@given(st.text(max_size=300), st.integers(2, 40))
def test_pieces_fit_and_lose_only_white_space(text: str, most: int) -> None:
    found = cut(text, most)
    assert all(0 < len(piece) <= most for piece in found)
    assert "".join("".join(found).split()) == "".join(text.split())


@given(st.text(max_size=300))
def test_sentences_lose_only_white_space(text: str) -> None:
    spans = list(sentences(text))
    assert "".join("".join(text[start:end] for start, end in spans).split()) == "".join(text.split())
    assert all(first[1] <= second[0] for first, second in pairwise(spans))


def test_tail_begins_with_a_word() -> None:
    text = "one two three four"
    found = tail(text, (0, len(text)), fits=lambda part: len(part) <= 12, guess=12)
    assert found is not None
    assert text[found[0] : found[1]] == "three four"


@pytest.mark.parametrize("text", ["." * 32_000 + "x", "?!" * 16_000 + "x", '."' * 16_000, "…" * 32_000 + "x"])
def test_a_long_run_of_stops_is_looked_at_once(text: str) -> None:
    began = time.process_time()
    assert "".join(said(text)) == text
    assert time.process_time() - began < 1.0  # the first took 12 s, and no other thread ran meanwhile
