"""What the roles beside gate, completion and sink are composed from."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from settings import Settings
from sinks.pool import Pool
from streams.encode import Encoder
from streams.vectors import Vectors
from vault.live import LiveSettings


@dataclass(frozen=True, slots=True)
class Made:
    """Of one worker; what is to be closed goes on `stack`.

    `vectors.opened()`: the repository of this process, the same one for all its roles.
    """

    settings: Settings
    pool: Pool | None
    encoder: Encoder
    live: LiveSettings
    stack: AsyncExitStack
    vectors: Vectors
