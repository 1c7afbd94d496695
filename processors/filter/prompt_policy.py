"""The one judge of text that goes to a model, whoever sends it: how risky it is, and what follows from that.

Prompts, instructions and history are judged by it at the gate; what else a model reads (goals, what tools and documents
say, names of files) is to be judged by the same function. It says pass, flag or refuse, and which kind of rule was met,
never its pattern.

All patterns run under RE2, whose time is linear in the text whatever the pattern. A filter of words catches the clumsy
and the copied; it does not stop somebody who tries: docs/filter.md says what it finds, and what it cannot.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

import re2

from processors.filter import default_rules
from processors.filter.hidden_text import hidden
from processors.filter.normalize_text import (
    Spelling,
    clean,
    fold,
    has_words_of_other_scripts,
    skeleton,
    spaced_letters,
    spellings,
    words,
)
from processors.filter.rule import Kind, Rule
from schemas.request_fields import without_unstorable

FLAG_FROM, REFUSE_FROM = 0.3, 0.5
REGEX_WEIGHT = 0.8  # of a regular expression that an operator set
MIN_SQUEEZED_CHARS = 10  # shorter ones stand in harmless words
SHORT_BYTES, RULES_AT_ONCE = 2_000, 6
WARMING = 4  # texts; after more of them no later one is quicker
_WORDS = re.compile(r"[a-zа-я]{2,}")
OBFUSCATED: Kind = "obfuscated-instruction"

CLASSIFIER = "classifier"
MAX_MENTION_CHARS = 2_000
_QUOTED = re.compile(
    r"\"[^\"\n]{3,300}\"|“[^”\n]{3,300}”|«[^»\n]{3,300}»|`[^`\n]{3,300}`|(?:(?<=\s)|^)'[^'\n]{3,300}'(?=[\s.,;:!?)]|$)"
)
_SPEAKS_OF = re2.compile(
    r"\b(?:what (?:does|is|are|do)|why (?:is|are|do|does|did|the)|how (?:do|does|can|to|should)|explains?|means?|"
    r"meaning|"
    r"examples?|attacks?|injections?|jailbreaks?|translate|phrase)\b"
    r"|что (?:значит|означает)|почему|объясни|переведи|фраз|пример|атак"
)

Action = Literal["pass", "flag", "refuse"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a text met.

    Attributes:
        risk: 0-1, of all rules that it met together.
        action: What is to follow; `flag`: it goes on, and is told of.
        reason: The kind of the weightiest rule; None where it met none.
        rules: Names of all that it met, weightiest first; those of a setting go by their kind.
    """

    risk: float
    action: Action
    reason: str | None = None
    rules: tuple[str, ...] = ()


HARMLESS = Verdict(0.0, "pass")


class PromptPolicy:
    """Compiled once; `judge` has no state."""

    def __init__(
        self,
        *,
        max_prompt_chars: int = 20_000,
        forbidden_commands: Sequence[str] | None = None,
        instruction_patterns: Sequence[str] | None = None,
        exfiltration_patterns: Sequence[str] | None = None,
        instruction_regex: str | None = None,
        role_override_regex: str | None = None,
        meta_system_regex: str | None = None,
        flag_from: float = FLAG_FROM,
        refuse_from: float = REFUSE_FROM,
    ) -> None:
        """Phrases are literal, regexes RE2; None means our defaults, an empty one no rule of that kind.

        Args:
            max_prompt_chars: Of a prompt with its history.
            forbidden_commands: Phrases; None: ours, and our rules on commands.
            instruction_patterns: Phrases that set instructions aside.
            exfiltration_patterns: Phrases that ask for what is secret; None: ours, and our rules on that.
            instruction_regex: In place of our rules on setting instructions aside. Like all of them it reads folded
                text: small letters without marks, one space where there was white space.
            role_override_regex: In place of our rules on personas without limits.
            meta_system_regex: In place of our rules on telling the system prompt.
            flag_from: The risk from which a text is told of.
            refuse_from: The risk from which it is refused; above 1: none is.

        Raises:
            ValueError: A regex is none that RE2 takes; names the setting.
        """
        self.max_prompt_chars, self._flag_from, self._refuse_from = max_prompt_chars, flag_from, refuse_from
        commands = _given(forbidden_commands, default_rules.FORBIDDEN_COMMANDS)
        instructions = _given(instruction_patterns, default_rules.INSTRUCTION_PATTERNS)
        secrets = _given(exfiltration_patterns, default_rules.EXFILTRATION_PATTERNS)
        regexes: tuple[tuple[Kind, str, str | None], ...] = (
            ("instruction-injection", "INSTRUCTION_REGEX", instruction_regex),
            ("role-override", "ROLE_OVERRIDE_REGEX", role_override_regex),
            ("system-prompt", "META_SYSTEM_REGEX", meta_system_regex),
        )
        given = [
            *_phrases("forbidden-command", 0.9, commands),
            *_phrases("instruction-injection", 0.9, instructions),
            *_phrases("exfiltration", 0.8, secrets),
            *(_operators_regex(kind, name, regex) for kind, name, regex in regexes if regex),
        ]
        replaced: set[Kind] = {kind for kind, _, regex in regexes if regex is not None}
        if forbidden_commands is not None:
            replaced.add("forbidden-command")
        if exfiltration_patterns is not None:
            replaced.add("exfiltration")
        self._readers = _readers(
            given,
            [(kind, rule) for kind, rules in default_rules.RULES.items() if kind not in replaced for rule in rules],
            ["".join(words(Spelling(fold(phrase), "all"))) for phrase in (*instructions, *secrets)],
        )

    def warm(self) -> None:
        """Compile all that a text may need, and let RE2 build its automata: the first long text would wait for it.

        Takes some tenths of a second; may run in a thread while others judge.
        """
        for reader in self._readers.values():
            for patterns in (reader.text, reader.words, reader.squeezed, reader.apart):
                patterns.compile()
        for text in _trying(self.max_prompt_chars):
            self.verdict(clean(text))

    def judge(self, text: str) -> Verdict | None:
        """What the text met that is reason to refuse it, or to tell of it; None where it passes."""
        verdict = self.verdict(text)
        return None if verdict.action == "pass" else verdict

    def verdict(self, text: str) -> Verdict:
        """How risky a text is, and what follows; its time is linear in the text."""
        text = without_unstorable(text)
        met = self._met(fold(text))
        verdict = self._of(met)
        if verdict.action == "refuse":
            return self._mentioned(verdict) if self._only_mentions(text) else verdict
        for other in hidden(text):
            more = [one for one in self._met(fold(other), with_leet=False) if one not in met]
            if more:
                met += [_Met(OBFUSCATED, one.name, one.weight) for one in more]
                verdict = self._of(met)
                if verdict.action == "refuse":
                    break
        return verdict

    def _only_mentions(self, text: str) -> bool:
        """True where somebody speaks of an attack: without what stands in quotation marks nothing is met."""
        if len(text) > MAX_MENTION_CHARS:
            return False
        around = _QUOTED.sub(" ", text)
        return around != text and _SPEAKS_OF.search(fold(around)) is not None and not self._met(fold(around))

    def _mentioned(self, verdict: Verdict) -> Verdict:
        """Told of, where it would be refused."""
        risk = round(min(verdict.risk, (self._flag_from + self._refuse_from) / 2), 3)
        return Verdict(risk, self._action(risk), verdict.reason, verdict.rules)

    def with_score(self, verdict: Verdict, score: float) -> Verdict:
        """The verdict once a classifier has said how sure it is; its score weighs as one rule more."""
        risk = round(1 - (1 - verdict.risk) * (1 - score), 3)
        if (action := self._action(risk)) == "pass":
            return verdict
        reason = verdict.reason if verdict.reason is not None and verdict.risk >= score else CLASSIFIER
        return Verdict(risk, action, reason, (*verdict.rules, CLASSIFIER))

    def _action(self, risk: float) -> Action:
        return "refuse" if risk >= self._refuse_from else "flag" if risk >= self._flag_from else "pass"

    def _of(self, met: "Sequence[_Met]") -> Verdict:
        """Of each kind the weightiest counts, since rules of one kind overlap."""
        if not met:
            return HARMLESS
        weightiest: dict[Kind, float] = {}
        for one in met:
            weightiest[one.kind] = max(one.weight, weightiest.get(one.kind, 0.0))
        risk = round(1 - prod(1 - weight for weight in weightiest.values()), 3)
        by_weight = sorted(met, key=lambda one: -one.weight)
        return Verdict(risk, self._action(risk), by_weight[0].kind, tuple(dict.fromkeys(one.name for one in by_weight)))

    def _met(self, folded: str, *, with_leet: bool = True) -> "list[_Met]":
        """What a folded text meets; no more is read once it is enough."""
        met: list[_Met] = []
        for spelling in spellings(folded, with_leet=with_leet):
            reader = self._readers[spelling.of]
            found = words(spelling, of_any_script=reader.of_any_script)
            here = reader.text.met_in(spelling.text) + reader.words.met_in(" ".join(found))
            met += [one for one in here or reader.squeezed.met_in("".join(found)) if one not in met]
            if self._of(met).action == "refuse":
                return met
        if letters := spaced_letters(folded):
            for spelling in spellings(letters, with_leet=with_leet):
                met += self._readers[spelling.of].apart.met_in(spelling.text.replace(" ", ""))[:1]
        return met


@dataclass(frozen=True, slots=True)
class _Met:
    """A rule that a text met."""

    kind: Kind
    name: str
    weight: float


APART = _Met(OBFUSCATED, "letters-apart", 0.8)


class _Compiled:
    """A rule, compiled where it is needed: most are only ever read as parts of a group."""

    def __init__(self, met: _Met, source: str) -> None:
        self.met, self.source = met, source

    @cached_property
    def pattern(self) -> "re2._Regexp":
        return _compile(self.source)


class _Patterns:
    """Rules that read the same text. Nearly all texts meet none of them, and are through after one pass of all of them.

    Long ones are read some rules at a time: the automaton of all has more states than is good for an attacker to visit.
    Rules that refuse nobody alone are read alone: a text may meet many, and would have each of a group compiled anew.
    """

    def __init__(self, rules: Sequence[_Compiled], *, is_rare: bool = False) -> None:
        """`is_rare`: few texts are read by them, so that an automaton more, for short ones, is not worth its memory."""
        self._rules, self._is_rare = rules, is_rare

    @cached_property
    def _groups(self) -> "list[tuple[re2._Regexp, Sequence[_Compiled]]]":
        sure = [rule for rule in self._rules if rule.met.weight >= REFUSE_FROM]
        return [*_grouped(sure, RULES_AT_ONCE), *_grouped([rule for rule in self._rules if rule not in sure], 1)]

    @cached_property
    def _together(self) -> "list[tuple[re2._Regexp, Sequence[_Compiled]]]":
        return self._groups if self._is_rare else _grouped(self._rules, len(self._rules) or 1)

    def compile(self) -> None:
        """Now, rather than when a text is there."""
        for compiled in (self._groups, self._together):
            for any_of_them, _ in compiled:
                any_of_them.search(b"")

    def met_in(self, text: str) -> list[_Met]:
        """Those that match; of a long text, the first ones that say enough."""
        encoded = text.encode()  # or RE2 would do it for each
        is_short = len(encoded) <= SHORT_BYTES
        met: list[_Met] = []
        for any_of_them, rules in self._together if is_short else self._groups:
            if any_of_them.search(encoded) is not None:
                met += [rule.met for rule in rules if len(rules) == 1 or rule.pattern.search(encoded) is not None]
                if not is_short and any(one.weight >= REFUSE_FROM for one in met):
                    break
        return met


def _trying(chars: int) -> Iterator[str]:
    """Long texts of the rules' own words in any order, in each spelling."""
    known = {word for rules in default_rules.RULES.values() for rule in rules for word in _WORDS.findall(rule.pattern)}
    dice = random.Random(WARMING)  # noqa: S311 it is no secret
    for number in range(WARMING):
        text = " ".join(dice.choices(sorted(known), k=chars // 8))[:chars]
        yield text
        if number == 0:
            yield text.translate(str.maketrans("aeopc", "аеорс"))
            yield "".join(filter(str.isascii, text)).translate(str.maketrans("aeios", "43105"))


def _grouped(rules: Sequence[_Compiled], size: int) -> "list[tuple[re2._Regexp, Sequence[_Compiled]]]":
    groups = [rules[at : at + size] for at in range(0, len(rules), size)]
    try:
        return [
            (one[0].pattern if len(one) == 1 else _compile("|".join(f"(?:{rule.source})" for rule in one)), one)
            for one in groups
        ]
    except re2.error:  # an operator's phrases may be too many for that
        return [(rule.pattern, (rule,)) for rule in rules]


@dataclass(frozen=True, slots=True)
class _Reader:
    """What is looked for under one kind of spelling.

    Attributes:
        text: In the text as it is spelt.
        words: In its words, with a space between them.
        squeezed: In its words without spaces: phrases whose words may be cut into pieces.
        apart: In letters that stood one by one, and left no spaces to go by.
        of_any_script: Phrases from settings have letters that are neither Latin nor Cyrillic.
    """

    text: _Patterns
    words: _Patterns
    squeezed: _Patterns
    apart: _Patterns
    of_any_script: bool


def _readers(
    given: Sequence[_Compiled], own: Sequence[tuple[Kind, Rule]], phrases: Sequence[str]
) -> Mapping[str, _Reader]:
    """By `Spelling.of`. `given`: from settings; `own`: our rules that hold; `phrases`: without spaces."""
    english = [(kind, rule) for kind, rule in own if rule.language == "english" and rule.over == "words"]
    russian = [(kind, rule) for kind, rule in own if rule.language == "russian"]
    over_text = [(kind, rule) for kind, rule in own if rule.over == "text"]
    of_any_script = any(map(has_words_of_other_scripts, phrases))

    def reader(
        over: Sequence[tuple[Kind, Rule]], rules: Sequence[tuple[Kind, Rule]], spelt: Callable[[str], str] = str
    ) -> _Reader:
        long = [re2.escape(spelt(phrase)) for phrase in phrases if len(phrase) > MIN_SQUEEZED_CHARS]
        sure = [(kind, rule) for kind, rule in rules if rule.weight >= REFUSE_FROM]
        return _Reader(
            _Patterns([*(_spelt(one, spelt) for one in given), *(_own(*one, spelt) for one in over)]),
            _Patterns([_own(*one, spelt) for one in rules], is_rare=spelt is not str),
            _Patterns([_Compiled(APART, "|".join(long))] if long else []),
            _Patterns(
                [_own(kind, rule, lambda pattern: spelt(_run_together(pattern)), APART) for kind, rule in sure],
                is_rare=True,
            ),
            of_any_script,
        )

    latin = reader(over_text, english)
    return {
        "all": latin,
        "latin": latin,
        "cyrillic": reader(over_text, russian),
        "skeleton": reader((), english, skeleton),
    }


def _given(phrases: Sequence[str] | None, default: Sequence[str]) -> Sequence[str]:
    return default if phrases is None else phrases


def _phrases(kind: Kind, weight: float, phrases: Sequence[str]) -> list[_Compiled]:
    folded = [re2.escape(text) for text in map(fold, phrases) if text]
    source = "|".join(folded)
    return [_Compiled(_Met(kind, f"{kind}-phrase", weight), source)] if folded else []


def _operators_regex(kind: Kind, name: str, regex: str) -> _Compiled:
    try:
        _compile(regex)
    except re2.error as error:
        raise ValueError(f"{name} is not a regular expression that RE2 takes: {error}") from None
    return _Compiled(_Met(kind, f"{kind}-regex", REGEX_WEIGHT), regex)


def _own(kind: Kind, rule: Rule, spelt: Callable[[str], str], met: _Met | None = None) -> _Compiled:
    return _Compiled(met or _Met(kind, rule.name, rule.weight), spelt(rule.pattern))


def _spelt(given: _Compiled, spelt: Callable[[str], str]) -> _Compiled:
    """As it is where it would be no regular expression any more, such as `[[:alpha:]]` without its l."""
    source = spelt(given.source)
    try:
        _compile(source)
    except re2.error:
        return given
    return _Compiled(given.met, source)


def _run_together(pattern: str) -> str:
    """A pattern over words as one over their letters alone."""
    return pattern.replace(r"\b", "").replace("(?:^| )", "").replace(" ", "")


def _compile(pattern: str) -> "re2._Regexp":
    options = re2.Options()
    options.log_errors = options.case_sensitive = False
    options.never_capture = True
    options.max_mem = 32 << 20  # with less it would have to forget its states, and be slow
    return re2.compile(pattern, options)
