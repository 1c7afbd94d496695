"""The one judge of text that goes to a model, whoever sends it: how risky it is, and what follows from that.

Prompts, instructions and history are judged by it at the gate; what else a model reads (goals, what tools and documents
say, names of files) is to be judged by the same function. It says pass, flag or refuse, and which kind of rule was met,
never its pattern.

All patterns run under RE2, whose time is linear in the text whatever the pattern. A filter of words catches the clumsy
and the copied; it does not stop somebody who tries: docs/filter.md says what it finds, and what it cannot.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Literal

import re2

from processors.filter import default_rules
from processors.filter.hidden_text import hidden
from processors.filter.normalize_text import clean, fold, words_of_any_script
from processors.filter.patterns import REFUSE_FROM, Met
from processors.filter.readers import OBFUSCATED, given_phrases, operators_regex, readers
from processors.filter.rule import Kind
from processors.filter.spellings import letters, may_have_spaced_letters, spaced_letters, spellings, words
from schemas.request_fields import without_unstorable

FLAG_FROM = 0.3
WARMING = 4  # texts; after more of them no later one is quicker
_WORDS = re.compile(r"[a-zа-я]{2,}")

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
            *given_phrases("forbidden-command", 0.9, commands),
            *given_phrases("instruction-injection", 0.9, instructions),
            *given_phrases("exfiltration", 0.8, secrets),
            *(operators_regex(kind, name, regex) for kind, name, regex in regexes if regex),
        ]
        replaced: set[Kind] = {kind for kind, _, regex in regexes if regex is not None}
        if forbidden_commands is not None:
            replaced.add("forbidden-command")
        if exfiltration_patterns is not None:
            replaced.add("exfiltration")
        self._readers = readers(
            given,
            [(kind, rule) for kind, rules in default_rules.RULES.items() if kind not in replaced for rule in rules],
            ["".join(words_of_any_script(fold(phrase))) for phrase in (*instructions, *secrets)],
        )

    def warm(self) -> None:
        """Compile all that a text may need, and let RE2 build its automata: the first long text would wait for it.

        Takes some tenths of a second; may run in a thread while others judge.
        """
        for reader in self._readers.values():
            reader.compile()
        for text in _trying(self.max_prompt_chars):
            self.verdict(clean(text))

    def judge(self, text: str) -> Verdict | None:
        """What the text met that is reason to refuse it, or to tell of it; None where it passes."""
        verdict = self.verdict(text)
        return None if verdict.action == "pass" else verdict

    def verdict(self, text: str) -> Verdict:
        """How risky a text is, and what follows; its time is linear in the text."""
        text = without_unstorable(text)
        met = self._met(text)
        verdict = self._of(met)
        if verdict.action == "refuse":
            return self._mentioned(verdict) if self._only_mentions(text) else verdict
        for other in hidden(text):
            more = [one for one in self._met(other, with_leet=False) if one not in met]
            if more:
                met += [Met(OBFUSCATED, one.name, one.weight) for one in more]
                verdict = self._of(met)
                if verdict.action == "refuse":
                    break
        return verdict

    def _only_mentions(self, text: str) -> bool:
        """True where somebody speaks of an attack: without what stands in quotation marks nothing is met."""
        if len(text) > MAX_MENTION_CHARS:
            return False
        around = _QUOTED.sub(" ", text)
        return around != text and _SPEAKS_OF.search(fold(around)) is not None and not self._met(around)

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

    def _of(self, met: "Sequence[Met]") -> Verdict:
        """Of each kind the weightiest counts, since rules of one kind overlap."""
        if not met:
            return HARMLESS
        weightiest: dict[Kind, float] = {}
        for one in met:
            weightiest[one.kind] = max(one.weight, weightiest.get(one.kind, 0.0))
        risk = round(1 - prod(1 - weight for weight in weightiest.values()), 3)
        by_weight = sorted(met, key=lambda one: -one.weight)
        return Verdict(risk, self._action(risk), by_weight[0].kind, tuple(dict.fromkeys(one.name for one in by_weight)))

    def _met(self, text: str, *, with_leet: bool = True) -> "list[Met]":
        """What a text meets, once it is folded; no more is read once it is enough."""
        met: list[Met] = []
        folded = letters(text)
        for spelling in spellings(folded, with_leet=with_leet):
            reader, found = self._readers[spelling.of], words(spelling.text)
            here = reader.text.met_in(spelling.text)
            if reader.wide:
                here = reader.met_in_letters(fold(text), spelling.of) + here
            here += reader.words.met_in(found)
            met += [
                one for one in here or reader.squeezed_met_in(found, partial(fold, text), spelling.of) if one not in met
            ]
            if self._of(met).action == "refuse":
                return met
        if may_have_spaced_letters(folded) and (apart := spaced_letters(folded)):
            for spelling in spellings(apart, with_leet=with_leet):
                met += self._readers[spelling.of].apart.met_in(spelling.text.replace(b" ", b""))[:1]
        return met


def _given(phrases: Sequence[str] | None, default: Sequence[str]) -> Sequence[str]:
    return default if phrases is None else phrases


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
