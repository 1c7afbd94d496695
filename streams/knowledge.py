"""The stages of documents: what they are made of, and their agents.

document-received -> partition_document -> chunks-prepared -> embed_chunks -> job-finished
retrieval-requested -> retrieve_context -> completion-requested-<provider>, or job-finished
"""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from schemas.topics import Catalog
from settings import Settings
from sinks.pool import Pool
from streams.app import StreamApp
from streams.encode import Encoder
from streams.serve import StageServer
from streams.vectors import Vectors
from vault.live import LiveSettings


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a worker that knows documents is composed from; what is to be closed goes on `stack`.

    `vectors.opened()`: the repository of this process, the same one for all its roles.
    """

    settings: Settings
    pool: Pool | None
    encoder: Encoder
    live: LiveSettings
    stack: AsyncExitStack
    vectors: Vectors


async def declare_ingestion(app: StreamApp, server: StageServer, catalog: Catalog, made: Knowledge) -> None:
    """Documents in: cut into chunks, and vectors of them stored."""


async def declare_retrieval(app: StreamApp, server: StageServer, catalog: Catalog, made: Knowledge) -> None:
    """Passages out: for an answer, or as they are."""
