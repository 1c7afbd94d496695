"""What speech needs from outside, as Protocols; the adapters are in `providers/` and `streams/`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from schemas.events import Job


@dataclass(frozen=True, slots=True)
class Voices:
    """What a provider can speak with and in, by the names that it knows them by."""

    speakers: Sequence[str] = ()
    languages: Sequence[str] = ()


class SpeechProvider(Protocol):
    """Says a text. Its calls raise as those of `CompletionProvider`."""

    @property
    def name(self) -> str:
        """As in `ALLOWED_PROVIDERS`."""
        ...

    @property
    def max_piece_chars(self) -> int:
        """The longest text that it is given at once."""
        ...

    @property
    def pieces_at_once(self) -> int:
        """How many pieces of one text it is given at the same time."""
        ...

    async def speak(
        self, text: str, *, speaker: str, language: str, instruct: str | None, timeout_s: float
    ) -> bytes:  # fmt: skip
        """The text as a WAV file, which nobody has looked into yet."""
        ...

    async def voices(self) -> Voices:
        """What it has now; may be what it had a minute ago."""
        ...


@dataclass(frozen=True, slots=True)
class KeptAudio:
    """A WAV file in the payload store."""

    payload_id: UUID
    size: int
    sha256: str
    seconds: float


class AudioStore(Protocol):
    """Keeps what was spoken: one file for a run of a job, and the first one stays."""

    async def find(self, job: Job) -> KeptAudio | None:
        """What is kept of this run already: a worker has died before it could say so.

        Raises:
            RetryableError: The store is away.
        """
        ...

    async def keep(self, job: Job, wav: bytes) -> KeptAudio:
        """Keep it; what is kept then, which is another's where that one was sooner.

        Raises:
            RetryableError: The store is away.
            PermanentError: The user has as much as one may have.
        """
        ...
