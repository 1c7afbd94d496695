"""The labelled texts: attacks in 12 families and harmless prompts in 8, each in a half for tuning and one held out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from bench.filter_quality import attacks_held_out, attacks_tuning, harmless_held_out, harmless_tuning
from bench.filter_quality.disguises import ENCODED, LETTERS, MARKUP

Half = Literal["tuning", "held-out"]
DISGUISED = (
    "direct-override",
    "role-play",
    "prompt-extraction",
    "exfiltration",
)  # their first ones are put in disguise


@dataclass(frozen=True, slots=True)
class Sample:
    """A text as the gate judges it: turns of a conversation are lines."""

    family: str
    text: str


def attacks(half: Half) -> Iterator[Sample]:
    """At least 300 of each half."""
    source = attacks_tuning if half == "tuning" else attacks_held_out
    for family, texts in source.ATTACKS.items():
        for text in texts:
            for carrier in source.CARRIERS:
                # Of a conversation the last turn is what it comes down to: what is said around it stands before.
                is_talk = family == "multi-turn" and carrier != "{}"
                yield Sample(family, f"{carrier.partition('{')[0]}\n{text}" if is_talk else carrier.format(text))
    plain = [text for family in DISGUISED for text in source.ATTACKS[family][:2]]
    for family, disguises in (("disguised-letters", LETTERS), ("encoded", ENCODED), ("markup", MARKUP)):
        for disguise in disguises.values():
            yield from (Sample(family, disguise(text)) for text in plain)


def harmless(half: Half) -> Iterator[Sample]:
    """At least 500 of each half."""
    source: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = (
        harmless_tuning.HARMLESS if half == "tuning" else harmless_held_out.HARMLESS
    )
    for family, (templates, fillings) in source.items():
        for template in templates:
            for filling in fillings:
                yield Sample(family, template.format(*[filling] * template.count("{")))
