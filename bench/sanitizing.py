"""What it takes to sanitize a text: of common length, and of 20,000 characters that were chosen to take long."""

import base64
import codecs
import random
import statistics
from collections.abc import Iterator
from time import thread_time

from bench.measure import Row
from bench.near_misses import near_misses
from processors.filter.normalize_text import clean
from processors.filter.prompt_policy import PromptPolicy

CHARS = 20_000
AGAIN = 50
_TRIGGERS = (
    "ignore", "all", "your", "these", "previous", "show", "me", "the", "system", "repeat", "print", "tell", "you",
    "are", "now", "act", "as", "pretend", "enable", "prompt", "disregard", "any", "every", "without", "rules",
    "restrictions",
    "mode", "send", "data", "to", "with", "forget", "everything", "above", "instructions", "do", "not", "игнорируй",
    "покажи", "ты", "теперь", "забудь", "все", "твои", "правила", "без",
)  # fmt: skip
_ENGLISH = [word for word in _TRIGGERS if word.isascii()]
COMMON = (
    "Why is the sky blue? Explain it to a child in a few sentences, please.",
    "Write a Python function that reads a file and prints each line before the first empty one.",
    "Почему небо голубое? Объясни ребёнку в нескольких предложениях.",
    "SELECT name FROM users WHERE id = 7; -- why is this slow on 2 million rows?",
)


def hostile(seed: int = 1) -> Iterator[tuple[str, str]]:
    """Texts of 20,000 characters by what makes them hostile; no seed's are another's."""
    dice = random.Random(seed)
    triggers = " ".join(dice.choice(_TRIGGERS) for _ in range(CHARS))[:CHARS]
    english = " ".join(dice.choice(_ENGLISH) for _ in range(CHARS))[:CHARS]
    pieces = "".join(
        dice.choice(["ig", "nore", "all", "sho", "w ", "your ", " the ", "1", "ins"]) for _ in range(CHARS)
    )
    texts = {
        "plain": "The quick brown fox jumps over the lazy dog. " * 500,
        "trigger words": triggers,
        "pieces of trigger words": pieces,
        "nested quantifiers": "a" * 9_999 + "!" + "((((" * 2_500,
        "all spaces": " \t\n" * 7_000,
        "one letter": "i" * CHARS,
        "spaced letters": "i g n o r e 1 " * 2_000,
        "combining marks": "a" + "\u0316\u0301" * 10_000,
        "letters that expand": "\ufdfa" * CHARS,
        "look-alikes": english.translate(str.maketrans("aeopc", "аеорс")),
        "leetspeak": english.translate(str.maketrans("aeios", "43105")),
        "mathematical letters": "𝓲𝓰𝓷𝓸𝓻𝓮 " * 3_000,
        "joined emoji": "👩‍👩‍👧\u200d" * 4_000,
        "zero-width": "i\u200bg\u200b" * 5_000,
        "any letters": "".join(chr(dice.randrange(32, 0x2FFF)) for _ in range(CHARS)),
        "Cyrillic": "Почему небо голубое, и что такое правила игры? " * 450,
        "one base64": base64.b64encode(english.encode()).decode(),
        "many base64": " ".join(base64.b64encode(dice.randbytes(20)).decode() for _ in range(700)),
        "hex": dice.randbytes(10_000).hex(),
        "hex in pairs": "69 67 6e 6f 72 65 " * 1_200,
        "rot13": codecs.encode(english, "rot13"),
        "backwards": english[::-1],
        "tags and escapes": "<b>ig</b>nore &#105; %41%42 \\u0041 " * 600,
        "entities": "&#105;" * 3_400,
        "brackets": "<a<!--" * 3_400,
        "letters beyond the first planes": "\U00020000" * CHARS,
        "any letters of all planes": "".join(chr(dice.randrange(0x10000, 0x110000)) for _ in range(CHARS)),
        "Chinese and Korean": "".join(chr(dice.randrange(0x3100, 0xD7A4)) for _ in range(CHARS)),
        "Greek with marks": "".join(chr(dice.randrange(0x1F00, 0x2000)) for _ in range(CHARS)),
        "letters in boxes": "".join(dice.choice("\U0001f150аi1") for _ in range(CHARS)),
        "letters apart, of two scripts": "".join(
            dice.choice(["a b c d ", "а б в г ", "1 g n 0 "]) for _ in range(CHARS)
        ),
        "full-width": english.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)}),
        "scripts mixed in words": "".join(dice.choice("ｉｇｎоｒе１ ") for _ in range(CHARS)),
        "percent": "%D0%B0" * 3_400,
        "many base64 of words": " ".join(
            base64.b64encode("".join(dice.choice("аеоi1 ") for _ in range(9)).encode()).decode() for _ in range(1_000)
        ),
    }
    texts |= {
        "nearly our rules": near_misses("english", dice, CHARS),
        "nearly our Russian rules": near_misses("russian", dice, CHARS),
        # The same in every reading that there is: mixed scripts, leetspeak, a tag, rot13, backwards, letters apart.
        "nearly our rules, read in every way": " ".join(
            f"{near_misses(language, dice, 900)} <b> gur уou uoy %41 3а6удь i g n о r е"
            for language in ("english", "russian") * 11
        ),
        "letters that compose to three": "\U0001d160" * CHARS,
        "marks on every letter": "e\u0316\u0301" * 7_000,
        "Hangul in pieces": "".join(chr(dice.randrange(0x1100, 0x1200)) for _ in range(CHARS)),
        "shortest entities": "&#1" * 7_000,
        "shortest tags": "<a>" * 7_000,
        "many hex": "69676e6f726569676e6f7265 " * 800,
        "nearly hex": "69" * 13 + (" ab" * 11 + " g") * 600,
        "shortest base64": "aWdub3J-IGFsbC_w " * 1_200,
        "percent and escapes": "%41\\u0431" * 2_300,
        "letters apart, in boxes": "\U0001f158 g n 中 " * 2_500,
    }
    texts["all of it"] = "".join(text[: CHARS // len(texts) // 2] for text in texts.values()) * 2
    for name, text in texts.items():
        yield name, text[:CHARS]


def seconds(policy: PromptPolicy, text: str) -> float:
    """CPU of one text, cleaned and judged: what else runs here does not count."""
    began = thread_time()
    policy.verdict(clean(text))
    return thread_time() - began


def _p99(found: list[float]) -> float:
    return sorted(found)[int(len(found) * 0.99)]


def sanitizing() -> list[Row]:
    """Every kind of hostile text, each of them another one every time."""
    policy = PromptPolicy()
    began = thread_time()
    policy.warm()
    warming = thread_time() - began
    short = [seconds(policy, f"{text} {n}") for n in range(500) for text in COMMON][len(COMMON) :]
    by_kind: dict[str, list[float]] = {}
    for seed in range(AGAIN):
        for name, text in hostile(seed):
            by_kind.setdefault(name, []).append(seconds(policy, text))
    every = sorted(second for found in by_kind.values() for second in found)
    slowest = max(by_kind, key=lambda name: statistics.median(by_kind[name]))
    worst = max(by_kind, key=lambda name: _p99(by_kind[name]))
    told = f"p50 {every[len(every) // 2] * 1e3:.1f} ms, p99 {_p99(every) * 1e3:.1f} ms, max {every[-1] * 1e3:.1f} ms"
    first = max(found[0] for found in by_kind.values())
    return [
        ("sanitizing a prompt of some 80 characters, CPU", f"p50 {statistics.median(short) * 1e6:.0f} us", "-"),
        (f"sanitizing 20,000 characters, {len(by_kind)} hostile kinds, CPU", told, "p99 10 ms"),
        (f"  slowest kind: {slowest}", f"p50 {statistics.median(by_kind[slowest]) * 1e3:.1f} ms", "-"),
        (f"  kind with the largest p99: {worst}", f"p99 {_p99(by_kind[worst]) * 1e3:.1f} ms", "p99 10 ms"),
        ("  the first of its kind in a process, slowest", f"{first * 1e3:.1f} ms", "-"),
        ("  warming up, once at a worker's start", f"{warming * 1e3:.0f} ms", "-"),
        *(
            (f"  {name}", f"p50 {statistics.median(found) * 1e3:.1f} ms, max {max(found) * 1e3:.1f} ms", "-")
            for name, found in by_kind.items()
        ),
    ]
