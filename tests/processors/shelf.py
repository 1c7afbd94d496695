"""Documents of users in memory, and whoever asks for them."""

from typing import Any
from uuid import UUID, uuid4

from processors.documents.document_ports import Collection, EmbeddedChunk
from processors.filter.prompt_policy import PromptPolicy
from processors.ports import EmbeddingProvider
from processors.retrieve_context import RetrievalRules, retrieve_context
from processors.stage import Emit
from schemas.events import Chunk, CompletionRequested, JobFinished, RetrievalRequested
from tests.factories import NOW
from tests.fakes import FakeEmbeddings, MemoryDocuments, MemoryVectors

LOCAL = Collection("local", "multilingual-e5-small", 3)
OPENAI = Collection("openai", "text-embedding-3-small", 3)
POLICY = PromptPolicy()
BEES = "Bees find their way home by the sun and by what they remember of the country."
ASKED = "How do bees find their way home?"
TOWARDS_BEES = (1.0, 0.0, 0.0)


class Shelf:
    """Documents of users, and whoever asks for them."""

    def __init__(self) -> None:
        self.vectors, self.ledger = MemoryVectors(), MemoryDocuments()
        self.local = FakeEmbeddings({ASKED: TOWARDS_BEES, "bees": TOWARDS_BEES, "Где живут пчёлы?": TOWARDS_BEES})
        self.openai = FakeEmbeddings({ASKED: TOWARDS_BEES}, name="openai", model="text-embedding-3-small")
        self.providers: dict[str, EmbeddingProvider] = {"local": self.local, "openai": self.openai}
        self.rerankers: dict[str, Any] = {}
        self.rules = RetrievalRules()

    async def add(
        self, *texts: str, similarity: float = 0.9, user: str = "alice", source: str = "bees.md",
        where: Collection = LOCAL, document_id: UUID | None = None, starts: tuple[int, ...] = (),
    ) -> UUID:  # fmt: skip
        version_id, at = self.ledger.add(user, where), 0
        chunks = []
        for index, text in enumerate(texts):
            start = starts[index] if starts else at
            at = start + len(text) + 1
            chunk = Chunk(index=index, text=text, start=start, end=start + len(text), tokens=9, page=index + 1)
            vector = (similarity - index / 1000, 0.1, 0.0)
            chunks.append(EmbeddedChunk(chunk, vector))
        await self.vectors.store(
            user, where, document_id=document_id or uuid4(), version_id=version_id, source=source, chunks=chunks
        )
        return version_id

    async def asked(self, event: RetrievalRequested) -> Any:
        result = await retrieve_context(
            event, providers=self.providers, vectors=self.vectors, policy=POLICY, now=NOW,
            ledger=self.ledger,  # type: ignore[arg-type]  # it is asked for no more
            rerankers=self.rerankers, rules=self.rules,
        )  # fmt: skip
        assert isinstance(result, Emit)
        (emitted,) = result.events
        return emitted

    async def answered_from(self, event: RetrievalRequested) -> list[str]:
        completion = await self.asked(event)
        assert isinstance(completion, CompletionRequested), completion
        assert completion.retrieved is not None
        assert [passage.index for passage in completion.retrieved.passages] == list(
            range(1, len(completion.retrieved.passages) + 1)
        )
        return [passage.text for passage in completion.retrieved.passages]

    async def found(self, event: RetrievalRequested) -> list[dict[str, Any]]:
        finished = await self.asked(event)
        assert isinstance(finished, JobFinished)
        assert finished.result is not None, finished.error
        results: list[dict[str, Any]] = finished.result["results"]
        return results
