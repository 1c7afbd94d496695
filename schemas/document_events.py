"""Documents on their way in, as chunks, and on their way out, as the passages that a question is answered from."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from schemas.event_base import Event
from schemas.job_events import WorkEvent
from schemas.requests import DocumentRequest, RagRequest, SearchRequest


class DocumentReceived(WorkEvent):
    """A file is to be partitioned into chunks. `provider` will make their vectors."""

    provider: str
    request: DocumentRequest


class Chunk(Event):
    """A piece of a document, of at most so many tokens as its embedding model reads.

    `index`: its place in the document, from 0; `start`, `end`: its characters in the document's text (all pages' texts,
    joined by line feeds), `end` exclusive; `section`: the headings above it, joined by " > ".
    """

    index: Annotated[int, Field(ge=0)]
    text: str
    start: int
    end: int
    tokens: int
    page: int | None = None
    section: str | None = None


class ChunksPrepared(WorkEvent):
    """A batch of a document's chunks, at most 32. `version_id`: of the document's version that they are of."""

    provider: str
    document_id: UUID
    version_id: UUID
    source: str
    batch: Annotated[int, Field(ge=0)]
    chunks: Annotated[tuple[Chunk, ...], Field(min_length=1, max_length=32)]


class RetrievalRequested(WorkEvent):
    """Passages are to be found for a question or a query.

    `provider`: makes its vector; `provider_is_named`: the user said so, and no other will do; `llm_provider`: answers
    the question, where there is one.
    """

    provider: str
    provider_is_named: bool = False
    llm_provider: str | None = None
    request: RagRequest | SearchRequest


class Passage(Event):
    """A piece of a document that was found. `index`: its number in the answer's citations, from 1.

    `score`: 0-1, the higher the better, comparable within one answer only; `page`: from 1, None where the document has
    none; `risk`: how surely it holds instructions for a model (0-1).
    """

    index: Annotated[int, Field(ge=1)]
    text: str
    score: float
    document_id: UUID
    source: str
    chunk: int
    page: int | None = None
    section: str | None = None
    risk: float = 0.0


class Retrieved(Event):
    """What a question is to be answered from: passages of the user's documents, best first, and how they came.

    `left_out`: so many were found, and held too much of what reads like instructions.
    """

    question: str
    passages: tuple[Passage, ...]
    embedding_provider: str
    embedding_model: str
    mode: str = "hybrid"
    left_out: int = 0
