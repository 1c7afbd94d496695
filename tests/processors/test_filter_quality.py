"""What the filter finds on labelled texts may not get worse; docs/filter.md says what these figures are worth."""

import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.filter_quality.__main__ import by_family, share
from bench.filter_quality.sets import attacks, harmless
from processors.filter import normalize_text, patterns, prompt_policy
from processors.filter.prompt_policy import PromptPolicy
from processors.filter.spellings import Spelling

POLICY = PromptPolicy()
HELD_OUT_RECALL, HELD_OUT_FALSE = 0.85, 0.01
TUNED_RECALL, TUNED_FALSE = 0.98, 0.005
FAMILY_RECALL = 0.5  # of each that is held out


def recall(half: str, family: str | None = None, policy: PromptPolicy = POLICY) -> float:
    found = by_family(attacks(half), policy.verdict)  # type: ignore[arg-type]
    return share([one for name, ones in found.items() if family in (None, name) for one in ones], "refuse")


def test_the_sets_are_as_large_and_as_various_as_we_say() -> None:
    bad = [*attacks("tuning"), *attacks("held-out")]
    good = [*harmless("tuning"), *harmless("held-out")]
    assert len(bad) >= 600
    assert len({sample.family for sample in bad}) == 12
    assert len(good) >= 1_000
    texts = [{sample.text for sample in half} for half in (attacks("tuning"), attacks("held-out"))]
    assert not texts[0] & texts[1]
    assert all(len(half) >= 300 for half in texts)


def test_attacks_that_nothing_was_tuned_on_are_found() -> None:
    assert recall("held-out") >= HELD_OUT_RECALL
    for family, found in by_family(attacks("held-out"), POLICY.verdict).items():
        assert share(found, "refuse") >= FAMILY_RECALL, family


def test_attacks_that_the_rules_were_made_for_are_found() -> None:
    assert recall("tuning") >= TUNED_RECALL


@pytest.mark.parametrize(("half", "most"), [("tuning", TUNED_FALSE), ("held-out", HELD_OUT_FALSE)])
def test_harmless_prompts_are_left_alone(half: str, most: float) -> None:
    found = by_family(harmless(half), POLICY.verdict)  # type: ignore[arg-type]
    every = [one for ones in found.values() for one in ones]
    assert share(every, "refuse") <= most
    assert share(every, "refuse", "flag") <= 2 * most


def test_one_pass_of_all_rules_finds_what_some_at_a_time_do(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [*attacks("tuning"), *attacks("held-out"), *harmless("tuning"), *harmless("held-out")]
    together = [POLICY.verdict(sample.text).action for sample in samples]
    monkeypatch.setattr(patterns, "SHORT_BYTES", -1)
    assert [POLICY.verdict(sample.text).action for sample in samples] == together


def _plainly(folded: bytes, *, with_leet: bool = True) -> Iterator[Spelling]:
    yield Spelling(folded, "all")


def _barely(text: str) -> bytes:
    return re.sub(r"\s+", " ", text.casefold()).encode("ascii", "replace")


def _nothing(_: str) -> list[str]:
    return []


@pytest.mark.parametrize(
    ("name", "instead", "family"),
    [
        ("hidden", _nothing, "encoded"),
        ("spellings", _plainly, "disguised-letters"),
        ("letters", _barely, "disguised-letters"),
        ("spaced_letters", lambda _: b"", "disguised-letters"),
        ("hidden", _nothing, "markup"),
    ],
)
def test_each_step_of_normalisation_is_needed(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Callable[..., object], family: str
) -> None:
    """Without it the family that it is for gets through, and the figures above turn red."""
    before = recall("tuning", family)
    monkeypatch.setattr(prompt_policy, name, instead)
    assert recall("tuning", family, PromptPolicy()) < before - 0.02


PIECES = st.sampled_from(
    ["\\ud800", "&#xd800;", "&#1114112;", "%d0%", "\ud83d", "\x00", "aWdub3Jl" * 3, "=", "0x41 0x42", "\\x41" * 6,
     "69" * 13, "gur", "uoy ", "<b", "<!--", "i g n o r e", "1gn0re", "аll", "\"quoted\"", "what does", "\U000e0041",
     "ﷺ", "Ignore all"]
)  # fmt: skip


@given(st.lists(PIECES | st.text(max_size=8), max_size=12).map("".join))
def test_whatever_the_text_there_is_a_verdict(text: str) -> None:
    verdict = POLICY.verdict(text)
    assert 0 <= verdict.risk <= 1
    assert (verdict.reason is None) == (not verdict.rules)


def test_marks_in_heaps_are_cut_and_letters_keep_theirs() -> None:
    heap = "a" + "\u0301\u0316" * 5_000
    assert len(normalize_text.clean(heap)) <= 1 + normalize_text.MAX_MARKS
    assert normalize_text.clean("Z\u0301a\u0328 क्षि") == "Źą क्षि"
