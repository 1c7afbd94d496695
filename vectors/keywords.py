"""Texts as BM25-style sparse vectors, for the keyword half of a search: pure, and the same in every process.

Documents carry how much a word says of them (its frequency, saturated, by the text's length); how rare a word is,
Qdrant adds itself (modifier IDF). Source: Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25".
"""

import re
import threading
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import snowballstemmer

K1, B = 1.2, 0.75
AVERAGE_WORDS = 200  # of a chunk of 512 tokens, without stop words; a constant, so that no text depends on the others
MAX_WORD_CHARS = 64
CACHED_WORDS = 100_000  # some 20 MB

# Scripts without spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han.
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecd\u1000-\u1049\u1780-\u17d3\u3005\u3041-\u309f\u30a1-\u30ff\u3400-\u4dbf"
    "\u4e00-\u9fff\U00020000-\U0003ffff"
)
# Marks that are no letters to Python, though they stand within words: combining ones, Hebrew, Arabic, Indic vowels.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u0dff"
_WORDS = re.compile(f"[{_UNSPACED}]+|(?:(?![{_UNSPACED}])[^\\W_]|[{_MARKS}])+(?:['\u2019](?:s|t|re|ve|ll|d|m)\\b)?")
_UNSPACED_START = re.compile(f"[{_UNSPACED}]")
_LATIN = re.compile("[a-z\u00df-\u024f\u1e00-\u1eff]")
_CYRILLIC = re.compile("[\u0400-\u04ff]")
_ARABIC = re.compile("[\u0600-\u06ff]")
_POINTS = re.compile(
    "[\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]"
)  # written or left out at will

# Only what is in nearly every text: a word too many here is a question that finds nothing.
STOP_WORDS = frozenset(
    word
    for line in (
        "a an and are as at be by for from has he in is it its of on or that the to was were will with this these",
        "those i you we they but not do does did been have had which what who how",
        "и в во не что он на я с со как а то все она так его но да ты к у же вы за бы по ее мне было вот от меня о",
        "из ему это эта эти этот для или при",
    )
    for word in line.split()
)


@dataclass(frozen=True, slots=True)
class KeywordVector:
    """Words as numbers, ascending, and their weights."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


def document_vector(text: str) -> KeywordVector:
    """Of what is searched."""
    counts = _counts(text)
    norm = K1 * (1 - B + B * sum(counts.values()) / AVERAGE_WORDS)
    indices = tuple(sorted(counts))
    return KeywordVector(indices, tuple(counts[index] * (K1 + 1) / (counts[index] + norm) for index in indices))


def query_vector(text: str) -> KeywordVector:
    """Of what is asked: every word once."""
    indices = tuple(sorted(_counts(text)))
    return KeywordVector(indices, (1.0,) * len(indices))


def _counts(text: str) -> Counter[int]:
    found: Counter[int] = Counter()
    for run, times in Counter(_WORDS.findall(unicodedata.normalize("NFKC", text).casefold())).items():
        if _UNSPACED_START.match(run):
            for place in range(max(1, len(run) - 1)):
                found[_number(run[place : place + 2])] += times
        elif (number := _word(run[:MAX_WORD_CHARS])) is not None:
            found[number] += times  # two words of one number are one word: once in some millions
    return found


@lru_cache(CACHED_WORDS)
def _word(word: str) -> int | None:
    """The number of its stem; None of a stop word."""
    word = _POINTS.sub("", word).replace("\u2019", "'").replace("ё", "е")
    if not word or word in STOP_WORDS:
        return None
    if _LATIN.match(word):
        decomposed = unicodedata.normalize("NFD", word)
        plain = "".join(char for char in decomposed if not unicodedata.combining(char))  # cafe is café
        return _number(_stem("english", plain))
    if _CYRILLIC.match(word):
        return _number(_stem("russian", word))
    return _number(_stem("arabic", word)) if _ARABIC.match(word) else _number(word)


class _Stemmers(threading.local):
    """A stemmer keeps the word that it is at in itself, so each thread has its own."""

    def __init__(self) -> None:
        self.by_language = {name: snowballstemmer.stemmer(name) for name in ("english", "russian", "arabic")}


_stemmers = _Stemmers()


def _stem(language: str, word: str) -> str:
    return str(_stemmers.by_language[language].stemWord(word)) or word


def _number(word: str) -> int:
    """Stable over processes and machines, unlike `hash`; 32 bits, as Qdrant's indices are."""
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")
