"""What a rule on prompts is made of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "forbidden-command", "instruction-injection", "exfiltration", "role-override", "system-prompt",
    "obfuscated-instruction",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """`over`: the folded text as it is, or its words only."""

    name: str
    weight: float
    pattern: str
    over: Literal["words", "text"] = "words"
    language: Literal["english", "russian"] = "english"


def russian_rules(rules: Sequence[tuple[str, float, str]]) -> Iterator[Rule]:
    """From name, weight and pattern."""
    return (Rule(*rule, language="russian") for rule in rules)
