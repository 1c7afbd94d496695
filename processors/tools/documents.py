"""What the tools have in common that find passages in the user's own documents."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from processors.documents.document_ports import Collection, DocumentLedger, Found, VectorRepository
from processors.ports import EmbeddingProvider
from processors.tools.tool import Tool, ToolArguments, ToolContext, ToolResult
from schemas.request_fields import Text
from schemas.requests import MAX_TOP_K, SearchMode

MAX_QUERY_CHARS, MAX_PASSAGE_CHARS = 2_000, 1_500
EMBEDDING_TIMEOUT_S = 5.0
NOTHING, NO_DOCUMENTS = "Nothing was found.", "The user has no documents."


class DocumentArguments(ToolArguments):
    """What they take."""

    query: Annotated[Text, Field(min_length=1, max_length=MAX_QUERY_CHARS, description="What to look for")]
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K, description="How many passages")] = 5


class DocumentTool(Tool[DocumentArguments]):
    """Finds passages in all that the user has, whichever model made its vectors."""

    arguments = DocumentArguments
    mode: ClassVar[SearchMode]

    def __init__(
        self, *, ledger: DocumentLedger, vectors: VectorRepository, providers: Mapping[str, EmbeddingProvider]
    ) -> None:
        """`providers`: those that make vectors, by name."""
        self._ledger, self._vectors, self._providers = ledger, vectors, providers

    async def run(self, arguments: DocumentArguments, context: ToolContext) -> ToolResult:
        """See `Tool.run`."""
        user_id = context.job.user_id
        collections = await self._ledger.collections(user_id)
        if not collections:
            return ToolResult((NO_DOCUMENTS,))
        found = await asyncio.gather(*(self._found(one, arguments, user_id) for one in collections))
        # A version that was replaced meanwhile is not to be seen any more.
        hidden = set(await self._ledger.hidden(user_id))
        best = sorted((one for each in found for one in each if one.version_id not in hidden), key=_rank)
        passages = tuple(_told(one) for one in best[: arguments.top_k])
        return ToolResult(passages, is_untrusted=True) if passages else ToolResult((NOTHING,))

    async def _found(self, collection: Collection, arguments: DocumentArguments, user_id: str) -> Sequence[Found]:
        vector: Sequence[float] | None = None
        if self.mode != "keyword":
            provider = self._providers.get(collection.provider)
            if provider is None or provider.embedding_model != collection.model:
                return ()  # nobody here makes vectors that go with these
            made = await provider.embed([arguments.query], purpose="query", timeout_s=EMBEDDING_TIMEOUT_S)
            vector = made.vectors[0]
            if len(vector) != collection.dimensions:
                return ()
        hidden = await self._ledger.hidden(user_id)
        return await self._vectors.search(
            user_id, collection, query=arguments.query, vector=vector, mode=self.mode, limit=arguments.top_k,
            hidden=hidden,
        )  # fmt: skip


def _rank(found: Found) -> float:
    return -found.score


def _told(found: Found) -> str:
    page = f", page {found.chunk.page}" if found.chunk.page is not None else ""
    text = found.chunk.text
    if len(text) > MAX_PASSAGE_CHARS:
        text = f"{text[:MAX_PASSAGE_CHARS]} …"
    return f"[{found.source}{page}] {text}"
