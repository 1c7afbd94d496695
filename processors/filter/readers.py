"""What is looked for under each spelling of a text: our rules, and what settings give in their place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import re2

from processors.filter.normalize_text import fold, words_of_any_script
from processors.filter.patterns import REFUSE_FROM, Compiled, Met, Patterns, compile_pattern
from processors.filter.rule import Kind, Rule
from processors.filter.spellings import (
    Of,
    has_bytes,
    has_words_of_other_scripts,
    letters_of,
    made_cyrillic,
    skeleton,
)

REGEX_WEIGHT = 0.8  # of a regular expression that an operator set
MIN_SQUEEZED_CHARS = 10  # shorter ones stand in harmless words
OBFUSCATED: Kind = "obfuscated-instruction"
APART = Met(OBFUSCATED, "letters-apart", 0.8)
_NOTHING = Patterns([])


@dataclass(frozen=True, slots=True)
class Given:
    """A rule from settings: its pattern over folded text, and whether that is phrases rather than any expression."""

    met: Met
    source: str
    is_phrases: bool


@dataclass(frozen=True, slots=True)
class Reader:
    """What is looked for under one kind of spelling.

    Attributes:
        text: In the text as it is spelt.
        words: In its words, with a space between them.
        squeezed: In its words without spaces: phrases whose words may be cut into pieces.
        apart: In letters that stood one by one, and left no spaces to go by.
        wide: From settings, in the folded text letter by letter: it may speak of letters that no byte tells apart.
        wide_squeezed: In place of `squeezed`, in letters of any script.
    """

    text: Patterns
    words: Patterns
    squeezed: Patterns
    apart: Patterns
    wide: Patterns = _NOTHING
    wide_squeezed: Patterns = _NOTHING

    def met_in_letters(self, folded: str, of: Of) -> list[Met]:
        """What of `wide` the folded text meets, spelt as `of` says."""
        return self.wide.met_in(_in_letters(folded, of).encode())

    def squeezed_met_in(self, words: bytes, folded: Callable[[], str], of: Of) -> list[Met]:
        """What the text's words meet without their spaces. `folded`: the text, for scripts that have no bytes."""
        if self.wide_squeezed:
            return self.wide_squeezed.met_in("".join(words_of_any_script(_in_letters(folded(), of))).encode())
        return self.squeezed.met_in(words.replace(b" ", b""))

    def compile(self) -> None:
        """Now, rather than when a text is there."""
        for patterns in (self.text, self.words, self.squeezed, self.apart, self.wide, self.wide_squeezed):
            patterns.compile()


def _in_letters(folded: str, of: Of) -> str:
    return made_cyrillic(folded) if of == "mixed" else folded


def readers(given: Sequence[Given], own: Sequence[tuple[Kind, Rule]], phrases: Sequence[str]) -> Mapping[Of, Reader]:
    """By `Spelling.of`. `given`: from settings; `own`: our rules that hold; `phrases`: without spaces."""
    english = [(kind, rule) for kind, rule in own if rule.language == "english" and rule.over == "words"]
    russian = [(kind, rule) for kind, rule in own if rule.language == "russian"]
    over_text = [(kind, rule) for kind, rule in own if rule.over == "text"]
    long = [re2.escape(phrase) for phrase in phrases if len(phrase) > MIN_SQUEEZED_CHARS]
    of_any_script = any(map(has_words_of_other_scripts, phrases))

    def squeezed(spelt: Callable[[str], str | bytes]) -> Patterns:
        return Patterns([Compiled(APART, spelt("|".join(long)))] if long else [])

    def apart(rules: Sequence[tuple[Kind, Rule]], spelt: Callable[[str], str | bytes]) -> Patterns:
        sure = [rule for _, rule in rules if rule.weight >= REFUSE_FROM]
        return Patterns([Compiled(APART, spelt(_run_together(rule.pattern))) for rule in sure], is_rare=True)

    latin = Reader(
        Patterns([*map(_compiled, given), *(_own(*one, str) for one in over_text)]),
        Patterns([_own(*one, str) for one in english]),
        squeezed(str),
        apart(english, str),
    )
    narrow = [Compiled(one.met, letters_of(one.source)) for one in given if _has_bytes(one)]
    cyrillic = Reader(
        Patterns([*narrow, *(_own(*one, letters_of) for one in over_text)]),
        Patterns([_own(*one, letters_of) for one in russian]),
        squeezed(letters_of),
        apart(russian, letters_of),
        Patterns([_compiled(one) for one in given if not _has_bytes(one)]),
        squeezed(str) if of_any_script else _NOTHING,
    )
    undone = Reader(
        Patterns([_spelt(one, skeleton) for one in given]),
        Patterns([_own(*one, skeleton) for one in english], is_rare=True),
        squeezed(skeleton),
        apart(english, skeleton),
    )
    return {"all": latin, "latin": latin, "cyrillic": cyrillic, "mixed": cyrillic, "skeleton": undone}


def given_phrases(kind: Kind, weight: float, phrases: Sequence[str]) -> list[Given]:
    """One rule of a setting's phrases; none where there are none."""
    folded = [re2.escape(text) for text in map(fold, phrases) if text]
    return [Given(Met(kind, f"{kind}-phrase", weight), "|".join(folded), is_phrases=True)] if folded else []


def operators_regex(kind: Kind, name: str, regex: str) -> Given:
    """The rule of a setting.

    Raises:
        ValueError: RE2 does not take it; names the setting.
    """
    try:
        compile_pattern(regex)
    except re2.error as error:
        raise ValueError(f"{name} is not a regular expression that RE2 takes: {error}") from None
    return Given(Met(kind, f"{kind}-regex", REGEX_WEIGHT), regex, is_phrases=False)


def _has_bytes(given: Given) -> bool:
    """True of phrases in ASCII and Russian: a regex may speak of classes of letters, which bytes have none of."""
    return given.is_phrases and has_bytes(given.source)


def _compiled(given: Given) -> Compiled:
    return Compiled(given.met, given.source)


def _own(kind: Kind, rule: Rule, spelt: Callable[[str], str | bytes]) -> Compiled:
    return Compiled(Met(kind, rule.name, rule.weight), spelt(rule.pattern))


def _spelt(given: Given, spelt: Callable[[str], str]) -> Compiled:
    """As it is where it would be no regular expression any more, such as `[[:alpha:]]` without its l."""
    source = spelt(given.source)
    try:
        compile_pattern(source)
    except re2.error:
        return _compiled(given)
    return Compiled(given.met, source)


def _run_together(pattern: str) -> str:
    """A pattern over words as one over their letters alone."""
    return pattern.replace(r"\b", "").replace("(?:^| )", "").replace(" ", "")
