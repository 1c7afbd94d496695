"""Texts in pieces that are said one after another: whole sentences, as many as fit."""

import re
from collections.abc import Iterator

# A sentence ends with its mark and the quotes after it where white space follows, at a mark of scripts that need none,
# or with its line. Every repetition is bounded: a text of nothing but marks takes no longer than any other.
_END = re.compile(r"[.!?…][\"'”’»)\]]{0,3}(?=\s)|[。！？؟।][”’」』）]{0,3}|\n")
_SOFT_END = re.compile(r"[,;:—–、，；：](?=\s)|[、，；：]|\s")


def split_speech(text: str, *, max_chars: int) -> list[str]:
    """Its pieces in order, none longer than that; nothing of the text but white space is lost.

    Sentences stay together as long as they fit: a voice says them as one. A sentence that is longer is cut after a
    comma or between words, and a word that is longer anywhere.
    """
    pieces: list[str] = []
    held = ""
    for sentence in _sentences(text):
        for part in _fitting(sentence, max_chars):
            if held and len(held) + 1 + len(part) <= max_chars:
                held = f"{held} {part}"
                continue
            if held:
                pieces.append(held)
            held = part
    return [*pieces, held] if held else pieces


def _sentences(text: str) -> Iterator[str]:
    begin = 0
    for end in _END.finditer(text):
        if sentence := text[begin : end.end()].strip():
            yield sentence
        begin = end.end()
    if rest := text[begin:].strip():
        yield rest


def _fitting(sentence: str, max_chars: int) -> Iterator[str]:
    """The sentence, or what becomes of one that is too long: each cut as late as it can be."""
    while len(sentence) > max_chars:
        window = sentence[: max_chars + 1]
        cuts = [cut.end() for cut in _SOFT_END.finditer(window) if cut.end() <= max_chars]
        marks = [cut for cut in cuts if not window[cut - 1].isspace() and cut > max_chars // 2]
        cut = (marks or cuts or [max_chars])[-1]
        if piece := sentence[:cut].strip():
            yield piece
        sentence = sentence[cut:].strip()
    if sentence:
        yield sentence
