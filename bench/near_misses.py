"""Texts of what nearly meets our rules: pieces that they begin with, none of which is ever whole.

For a filter they are the worst: each letter is one that a rule goes on with, so its automaton has ever new states.
"""

import random
from collections.abc import Iterator, Sequence
from functools import cache
from re import _constants as what  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Literal

from processors.filter.default_rules import RULES
from processors.filter.patterns import compile_pattern

PIECES, TRIES = 400, 400
Language = Literal["english", "russian"]


def near_misses(language: Language, dice: random.Random, chars: int) -> str:
    """So long, another one each time."""
    pieces = _pieces(language)
    return " ".join(dice.choices(pieces, k=chars // 4))[:chars]


@cache
def _pieces(language: Language) -> Sequence[str]:
    """Beginnings of what the language's rules match, which in hardly any order match one of them."""
    patterns = [
        rule.pattern for rules in RULES.values() for rule in rules if (rule.language, rule.over) == (language, "words")
    ]
    compiled, parsed = (
        [compile_pattern(pattern) for pattern in patterns],
        [parser.parse(pattern) for pattern in patterns],
    )
    dice = random.Random(7)
    pieces: list[str] = []
    while len(pieces) < PIECES:
        said = "".join(_letters(dice.choice(parsed), dice)).split()
        pieces.append(" ".join(said[: -dice.choice((1, 1, 2))]))
        pieces = pieces if pieces[-1] else pieces[:-1]
    passed = 0
    for _ in range(TRIES):
        order = dice.sample(pieces, len(pieces))
        text = " ".join(order)
        met = next(filter(None, (one.search(text) for one in compiled)), None)
        passed = passed + 1 if met is None else 0
        if passed == 8:
            break
        if met is not None:
            pieces.remove(_piece_at(order, dice.choice((met.start() + 1, met.end() - 1))))
    return pieces


def _piece_at(order: Sequence[str], at: int) -> str:
    for piece in order:
        if at <= len(piece):
            return piece
        at -= len(piece) + 1
    return order[-1]


def _letters(parsed: Any, dice: random.Random) -> Iterator[str]:
    """Of a text that the expression matches."""
    for kind, told in parsed:
        if kind is what.LITERAL:
            yield chr(told)
        elif kind is what.IN:
            one, which = dice.choice(told)
            yield chr(which if one is what.LITERAL else dice.randint(*which)) if one is not what.CATEGORY else "x"
        elif kind is what.BRANCH:
            yield from _letters(dice.choice(told[1]), dice)
        elif kind in (what.MAX_REPEAT, what.MIN_REPEAT):
            least, most, repeated = told
            for _ in range(min(most, least + dice.choice((0, 0, 1, 1, 2, 3, 6)))):
                yield from _letters(repeated, dice)
        elif kind is what.SUBPATTERN:
            yield from _letters(told[3], dice)
        elif kind is what.ANY:
            yield "x"
