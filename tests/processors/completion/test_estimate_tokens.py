"""Tokens of a model whose tokenizer is not at hand. The real figures are SmolLM2's."""

import pytest

from processors.completion.estimate_tokens import cut_to_tokens, estimate_tokens

TEXTS = {
    "在函数内部声明全局变量，请使用 global 语句。这是一个普通的句子，用来测试分词器。": 60,
    "يمكن استخدام عبارة global لإعلان متغير عام داخل دالة. هذه جملة عادية.": 61,
    "12345 67890 3.14159, 2026-11-29T22:10:00Z a1b2c3d4 " * 10: 500,
}


@pytest.mark.parametrize("text", TEXTS)
def test_it_is_rather_too_many_and_not_by_much(text: str) -> None:
    assert 0.99 * TEXTS[text] <= estimate_tokens(text) <= 1.5 * TEXTS[text]


@pytest.mark.parametrize("text", ["Bees fly home. " * 50, "Пчёлы летят домой. " * 50, "蜜蜂飞回家。" * 100, "x" * 900])
def test_what_is_cut_fits_and_ends_with_a_word(text: str) -> None:
    cut = cut_to_tokens(text, 60)
    assert 40 <= estimate_tokens(cut) <= 60
    assert text.startswith(cut)
    if " " in text:
        assert cut == text[: len(cut)].rstrip()
        assert text[len(cut)] == " "
    assert cut_to_tokens("short", 60) == "short"
