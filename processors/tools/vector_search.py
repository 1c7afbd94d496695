"""Tool: the user's documents by meaning."""

from typing import ClassVar

from processors.tools.documents import DocumentTool
from schemas.requests import SearchMode


class VectorSearch(DocumentTool):
    """By likeness of meaning, in any language that the embedding model knows."""

    name: ClassVar[str] = "vector_search"
    description = "Find passages in the user's documents that mean something like the query, in whatever words."
    mode: ClassVar[SearchMode] = "dense"
