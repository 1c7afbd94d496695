"""Rules that read the same text, compiled for RE2 in groups, so that most texts are through after few passes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import re2

from processors.filter.rule import Kind

REFUSE_FROM = 0.5
SHORT_BYTES, RULES_AT_ONCE = 2_000, 6


@dataclass(frozen=True, slots=True)
class Met:
    """A rule that a text met."""

    kind: Kind
    name: str
    weight: float


class Compiled:
    """A rule, compiled where it is needed: most are only ever read as parts of a group."""

    def __init__(self, met: Met, source: str | bytes) -> None:
        """`source`: as bytes, over texts of one byte a letter (`spellings`); else over UTF-8."""
        self.met, self.source = met, source

    @cached_property
    def pattern(self) -> "re2._Regexp":
        """What matches."""
        return compile_pattern(self.source)


class Patterns:
    """Rules that read the same text. Nearly all texts meet none of them, and are through after one pass of all of them.

    Long ones are read some rules at a time: the automaton of all has more states than is good for an attacker to visit.
    Rules that refuse nobody alone are read alone: a text may meet many, and would have each of a group compiled anew.
    """

    def __init__(self, rules: Sequence[Compiled], *, is_rare: bool = False) -> None:
        """`is_rare`: few texts are read by them, so that an automaton more, for short ones, is not worth its memory."""
        self._rules, self._is_rare = rules, is_rare

    def __bool__(self) -> bool:
        return bool(self._rules)

    @cached_property
    def _groups(self) -> "list[tuple[re2._Regexp, Sequence[Compiled]]]":
        sure = [rule for rule in self._rules if rule.met.weight >= REFUSE_FROM]
        return [*_grouped(sure, RULES_AT_ONCE), *_grouped([rule for rule in self._rules if rule not in sure], 1)]

    @cached_property
    def _together(self) -> "list[tuple[re2._Regexp, Sequence[Compiled]]]":
        return self._groups if self._is_rare else _grouped(self._rules, len(self._rules) or 1)

    def compile(self) -> None:
        """Now, rather than when a text is there."""
        for compiled in (self._groups, self._together):
            for any_of_them, _ in compiled:
                any_of_them.search(b"")

    def met_in(self, text: bytes) -> list[Met]:
        """Those that match; of a long text, the first ones that say enough."""
        is_short = len(text) <= SHORT_BYTES
        met: list[Met] = []
        for any_of_them, rules in self._together if is_short else self._groups:
            if any_of_them.search(text) is not None:
                met += [rule.met for rule in rules if len(rules) == 1 or rule.pattern.search(text) is not None]
                if not is_short and any(one.weight >= REFUSE_FROM for one in met):
                    break
        return met


def _grouped(rules: Sequence[Compiled], size: int) -> "list[tuple[re2._Regexp, Sequence[Compiled]]]":
    groups = [rules[at : at + size] for at in range(0, len(rules), size)]
    try:
        return [(one[0].pattern if len(one) == 1 else compile_pattern(_any_of(one)), one) for one in groups]
    except re2.error:  # an operator's phrases may be too many for that
        return [(rule.pattern, (rule,)) for rule in rules]


def _any_of(rules: Sequence[Compiled]) -> str | bytes:
    """One source of all; those of a group are of one sort."""
    if isinstance(rules[0].source, bytes):
        return b"|".join(b"(?:%b)" % rule.source for rule in rules if isinstance(rule.source, bytes))
    return "|".join(f"(?:{rule.source})" for rule in rules if isinstance(rule.source, str))


def compile_pattern(source: str | bytes) -> "re2._Regexp":
    """As all rules are compiled; as bytes, over texts of one byte a letter.

    Raises:
        re2.error: RE2 does not take it.
    """
    options = re2.Options()
    options.log_errors, options.never_capture = False, True
    options.case_sensitive = isinstance(source, bytes)  # what is a capital among these bytes is a letter in ours
    if isinstance(source, bytes):
        options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = 32 << 20  # with less it would have to forget its states, and be slow
    return re2.compile(source, options)
