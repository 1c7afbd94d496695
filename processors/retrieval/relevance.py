"""Whether what was found has anything to do with the question: a search always finds something.

The cosine of two texts that have nothing to do with each other differs from model to model; the bounds are the
models', and docs/retrieval.md says how they were found.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from processors.documents.document_ports import Found
from processors.retrieval.nothing_found import language_of

_WORD = re.compile(r"[^\W_]+(?:[_.-][^\W_]+)*")
# Like E1042, max_length, ENOENT, maxLength.
_NAME = re.compile(r"(?=.*\d)(?=.*[^\W\d])|_|^[^\W\da-z]{3,}$|[a-zа-яё][A-ZА-ЯЁ]")
MIN_WORD, SAME_SHARE = 4, 0.7  # endings differ: words are the same whose beginnings are
COVERED_FROM = 0.5
# Words of four letters or more that questions are made of whatever they are about.
_ASKING_WORDS = """
what which when where whose whom that this these those with from into about does should could would will have
there their they them than then mean means tell give need want make work works used using please many much long
какой какая какие какое каком какую какого каких когда куда откуда почему зачем сколько чего чему этот этого эта
есть если можно нужно надо либо чтобы такое такой такая быть будет делает делать работает значит означает
расскажи скажи пожалуйста между после перед через
"""
_ASKING = frozenset(_ASKING_WORDS.split())


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a model: from `sure` a passage is taken to be relevant; from `possible` where words of the question agree.

    `across`: how much less does where question and passage are in two languages.
    """

    sure: float
    possible: float
    across: float = 0.0


# Measured for the first; the others are cautious.
BOUNDS: Mapping[str, Bounds] = {
    "multilingual-e5-small": Bounds(0.84, 0.80, across=0.035),
    "text-embedding-3-small": Bounds(0.30, 0.20),
    "text-embedding-3-large": Bounds(0.30, 0.20),
    "gemini-embedding-001": Bounds(0.60, 0.52),
    "nomic-embed-text": Bounds(0.58, 0.50),
    "text-embedding-nomic-embed-text-v1.5": Bounds(0.58, 0.50),
}
ANY_MODEL = Bounds(0.35, 0.20)


def bounds_of(model: str, set_by_operator: Mapping[str, float]) -> Bounds:
    """Those of a model; an operator's one is `sure`, and `possible` as much below it as ours are apart."""
    ours = BOUNDS.get(model, ANY_MODEL)
    sure = set_by_operator.get(model)
    return ours if sure is None else Bounds(sure, sure - (ours.sure - ours.possible), ours.across)


def relevant(found: list[Found], question: str, bounds: Bounds) -> list[Found]:
    """What a question can be answered from, in the same order; nothing where none of it is to the point."""
    if not any(is_to_the_point(one, question, bounds) for one in found):
        return []
    least = bounds.possible - bounds.across
    return [one for one in found if one.has_keyword or (one.similarity or 0.0) >= least]


def is_to_the_point(found: Found, question: str, bounds: Bounds) -> bool:
    """By its similarity; or it has a rare word of the question, or many, and is not too far from it."""
    similarity, text = found.similarity, found.chunk.text
    if similarity is not None:
        across = bounds.across if language_of(text) != language_of(question) else 0.0
        if similarity >= bounds.sure - across:
            return True
    if not found.has_keyword:
        return False
    if any(name in text for name in _names(question)):
        return True
    return (similarity is None or similarity >= bounds.possible) and _covered(question, text) >= COVERED_FROM


def _names(question: str) -> list[str]:
    """Words that are rare wherever they stand: identifiers, codes, abbreviations."""
    return [word for word in _WORD.findall(question) if len(word) >= MIN_WORD - 1 and _NAME.search(word)]


def _covered(question: str, text: str) -> float:
    """The share of the question's words that the text has."""
    asked = {word for word in _WORD.findall(question.casefold()) if len(word) >= MIN_WORD} - _ASKING
    if not asked:
        return 0.0
    there: dict[str, list[str]] = {word[:MIN_WORD]: [] for word in asked}
    for word in set(_WORD.findall(text.casefold())):
        if (heads := there.get(word[:MIN_WORD])) is not None:
            heads.append(word)
    return sum(any(_same(word, other) for other in there[word[:MIN_WORD]]) for word in asked) / len(asked)


def _same(one: str, other: str) -> bool:
    length = max(MIN_WORD, round(SAME_SHARE * min(len(one), len(other))))
    return one[:length] == other[:length] and abs(len(one) - len(other)) <= MIN_WORD
