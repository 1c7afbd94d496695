"""Tool: full text over the user's documents."""

from typing import ClassVar

from processors.tools.documents import DocumentTool
from schemas.requests import SearchMode


class Search(DocumentTool):
    """By words."""

    name: ClassVar[str] = "search"
    description = "Find passages in the user's documents that hold the words of the query."
    mode: ClassVar[SearchMode] = "keyword"
