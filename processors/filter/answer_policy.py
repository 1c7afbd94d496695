"""What a model may not answer: an operator's phrases, secrets, and the instruction that it was given.

| reason | what | how it is found |
|---|---|---|
| `forbidden-output` | a phrase of `FORBIDDEN_LLM_OUTPUT` | folded, anywhere in the text |
| `secret` | keys and tokens of known makers, private keys, JWTs, this deployment's own | letter by letter |
| `prompt-leak` | most of the instruction, word for word | folded, in the whole answer |

A secret that stands in the job's own texts is none: who sent it knows it. So nobody can try out guesses either, by
having them repeated. The instruction counts as secret because an application may give it for users of its own; whoever
asks for themselves is told no less by an answer in other words, and `LEAKED_INSTRUCTION_SHARE=0` switches it off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from processors.filter.hold_back import Class, FoldedStage, FoundError, HoldBack, Parts, RawStage, Stage, Strings
from processors.filter.normalize_text import fold

MAX_PHRASES, MAX_PHRASE_CHARS, MAX_ALL_CHARS = 1_000, 200, 20_000
MIN_OWN_SECRET_CHARS = 16  # shorter ones, such as a password in a test, stand in harmless texts
MAX_OWN_SECRET_CHARS = 200
MIN_LEAK_CHARS = 60  # of an instruction; less is said by chance
LEAKED_SHARE = 0.6
MAX_PLACES = 8

_WORD = "[A-Za-z0-9]"
_KEY = "[A-Za-z0-9_-]"
SECRETS: tuple[Parts, ...] = (
    ("sk-", Class(_WORD, 20, 20)),  # OpenAI, DeepSeek
    *((f"sk-{kind}-", Class(_KEY, 20, 20)) for kind in ("proj", "svcacct", "admin", "ant", "or-v1")),  # and Anthropic
    ("sk_live_", Class(_WORD, 16, 16)),  # Stripe
    ("rk_live_", Class(_WORD, 16, 16)),
    ("AIza", Class(_KEY, 35, 35)),  # Google
    ("AKIA", Class("[A-Z0-9]", 16, 16)),  # AWS
    ("ASIA", Class("[A-Z0-9]", 16, 16)),
    *((f"gh{kind}_", Class(_WORD, 36, 36)) for kind in "pousr"),  # GitHub
    ("github_pat_", Class("[A-Za-z0-9_]", 40, 40)),
    ("glpat-", Class(_KEY, 20, 20)),  # GitLab
    *((f"xox{kind}-", Class("[A-Za-z0-9-]", 20, 20)) for kind in "abeprs"),  # Slack
    ("hf_", Class(_WORD, 30, 30)),  # Hugging Face
    ("hvs.", Class(_KEY, 24, 24)),  # Vault
    ("npm_", Class(_WORD, 36, 36)),
    ("pypi-AgEI", Class(_KEY, 50, 50)),
    ("SG.", Class(_KEY, 22, 22), ".", Class(_KEY, 43, 43)),  # SendGrid
    ("whsec_", Class("[A-Za-z0-9+/]", 32, 32)),  # Standard Webhooks, ours
    ("eyJ", Class(_KEY, 10, 200), ".eyJ", Class(_KEY, 10, 10)),  # JWT
    (
        "-----BEGIN ",
        Class("[A-Z0-9 ]", 0, 20),
        "PRIVATE KEY-----",
        Class(r"[\s\\nr]", 1, 6),
        Class("[A-Za-z0-9+/]", 16, 16),
    ),
)
# As makers' own documents have them, and so models, too.
_EXAMPLES = ("EXAMPLE", "example", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxM")

Reason = Literal["forbidden-output", "secret", "prompt-leak"]


class WithheldError(Exception):
    """An answer that is not to be told, or no further."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class Sent:
    """What the model was sent of one job: its instruction, and all its other texts."""

    instruction: str | None
    others: tuple[str, ...]

    def holds(self, what: str) -> bool:
        """True if it was sent letter by letter, or is an example that everybody knows."""
        return any(example in what for example in _EXAMPLES) or any(
            what in text for text in (*self.others, self.instruction or "")
        )


class AnswerPolicy:
    """Compiled once, without state; `watch` begins an answer."""

    def __init__(
        self,
        *,
        forbidden: Sequence[str] = (),
        own_secrets: Sequence[str] = (),
        leaked_share: float = LEAKED_SHARE,
    ) -> None:
        """What is withheld, beside secrets of known makers.

        Args:
            forbidden: Phrases, literal but folded: capitals, accents and white space make no difference.
            own_secrets: Of this deployment; short ones are left out.
            leaked_share: Of an instruction, how much in one piece is a leak; 0: none is.

        Raises:
            ValueError: Too many phrases, or too long ones; names the setting.
        """
        phrases = sorted({folded for phrase in forbidden if (folded := fold(phrase))})
        too_long = [phrase for phrase in phrases if len(phrase) > MAX_PHRASE_CHARS]
        if too_long or len(phrases) > MAX_PHRASES or sum(map(len, phrases)) > MAX_ALL_CHARS:
            raise ValueError(
                f"FORBIDDEN_LLM_OUTPUT takes up to {MAX_PHRASES} phrases of up to {MAX_PHRASE_CHARS} characters each, "
                f"{MAX_ALL_CHARS} in all"
            )
        self._leaked_share = leaked_share
        self._phrases = Strings([(phrase,) for phrase in phrases]) if phrases else None
        own = [(secret[:MAX_OWN_SECRET_CHARS],) for secret in own_secrets if len(secret) >= MIN_OWN_SECRET_CHARS]
        self._own = Strings(own) if own else None
        self._secrets = Strings(SECRETS, before="[^A-Za-z0-9]")

    def watch(self, sent: Sent) -> "AnswerWatch":
        """Begin an answer that comes piece by piece."""
        raw = [RawStage(strings, may=sent.holds) for strings in (self._secrets, self._own) if strings is not None]
        folded = [FoldedStage(self._phrases)] if self._phrases is not None else []
        return AnswerWatch(raw, folded)

    def judge(self, answer: str, sent: Sent) -> Reason | None:
        """Why a whole answer is to be withheld; None where it may be told."""
        if any(one is not None and one.find(answer, may=sent.holds) is not None for one in (self._secrets, self._own)):
            return "secret"
        folded = fold(answer)
        if self._phrases is not None and self._phrases.find(folded, may=lambda _: False) is not None:
            return "forbidden-output"
        if self._leaked_share and sent.instruction and _leaks(folded, sent, self._leaked_share):
            return "prompt-leak"
        return None


class AnswerWatch:
    """One answer. What was told of it together holds nothing that is withheld, nor the beginning of it."""

    def __init__(self, secrets: Sequence[Stage], phrases: Sequence[Stage]) -> None:
        self._secrets, self._phrases = HoldBack(secrets), HoldBack(phrases)

    def told(self, piece: str) -> str:
        """What can be told now; the rest is held back.

        Raises:
            WithheldError: The answer holds what is withheld.
        """
        reason: Reason = "secret"
        try:
            safe = self._secrets.told(piece)
            reason = "forbidden-output"
            return self._phrases.told(safe)
        except FoundError:
            raise WithheldError(reason) from None


def _leaks(answer: str, sent: Sent, share: float) -> bool:
    """True if the folded answer holds so much of the instruction in one piece, which none of the other texts holds.

    A piece of that length holds a whole one of the parts that are half as long, and so is found by looking for these.
    """
    instruction = fold(sent.instruction or "")
    least = ceil(len(instruction) * share)
    if len(instruction) < MIN_LEAK_CHARS or len(answer) < least:
        return False
    half = max(1, least // 2)
    for start in range(0, len(instruction) - half + 1, half):
        part, place = instruction[start : start + half], -1
        for _ in range(MAX_PLACES):
            place = answer.find(part, place + 1)
            if place < 0:
                break
            before = _same(instruction[:start][::-1], answer[:place][::-1])
            after = _same(instruction[start + half :], answer[place + half :])
            if before + half + after >= least:
                piece = answer[place - before : place + half + after]
                return not any(piece in fold(text) for text in sent.others)
    return False


def _same(one: str, other: str) -> int:
    """How many letters they have in common at their beginnings."""
    most = min(len(one), len(other))
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
