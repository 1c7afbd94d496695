"""Cuts a document into chunks: along headings, paragraphs and sentences, none longer than its embedding model reads.

It works on what it is given and keeps one chunk's text, so a document may be of any length. The same blocks give the
same chunks, however they are parted into `Pages`.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from dataclasses import dataclass

from processors.documents.document_ports import Block, Pages, TokenCounter
from processors.documents.split_text import Span, pieces, sentences, tail
from schemas.events import Chunk

MAX_LETTERS = 4_000  # of a chunk: 32 of them fit into a record, whatever the script
MAX_CHUNKS_PER_BATCH = 32  # as ChunksPrepared takes
MAX_HEADING_LETTERS, MAX_SECTION_LETTERS = 200, 500
ROOM = 4  # a chunk that holds headings only takes what follows if so much of it is free: a fourth


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A part of the document's text that is not cut."""

    start: int
    end: int
    tokens: int
    page: int | None
    section: str | None
    is_heading: bool


class Chunker:
    """The chunks of one document.

    Args:
        counter: Counts as its embedding model does.
        max_tokens: Of a chunk.
        overlap_tokens: Of the end of a chunk that the next one of its section begins with, at most.
        max_letters: Of a chunk.
    """

    def __init__(
        self, *, counter: TokenCounter, max_tokens: int, overlap_tokens: int = 0, max_letters: int = MAX_LETTERS
    ) -> None:
        self._counter, self._max_tokens, self._max_letters = counter, max_tokens, max_letters
        self._overlap_tokens = min(overlap_tokens, max_tokens // 2)
        self._text, self._base, self._length = "", 0, -1  # of the document from `base` on; of all of it
        self._headings: list[tuple[int, str]] = []
        self._section: str | None = None
        self._open: list[_Sentence] = []
        self._carried = 0  # of `open`, those that the last chunk has, too
        self._index = 0

    def feed(self, pages: Pages) -> Iterator[Chunk]:
        """The chunks that are complete with these blocks. To be iterated to its end."""
        for block in pages.blocks:
            yield from self._feed(block)

    def finish(self) -> Iterator[Chunk]:
        """The last one; the document ends."""
        while len(self._open) > self._carried:
            yield self._close(overlaps=True, is_last=True)
        self._open.clear()

    def _feed(self, block: Block) -> Iterator[Chunk]:
        start = self._length + 1  # a line feed stands between blocks
        self._text += block.text if self._length < 0 else "\n" + block.text
        self._length = start + len(block.text)
        if block.level is not None:
            yield from self._begin_section(block)
        found = list(self._sentences(block, start))
        if self._is_better_apart(found):
            yield self._close(overlaps=True)
        for sentence in found:
            for part in self._fitted(sentence):
                while not self._takes(part):
                    yield from self._make_room()
                self._open.append(part)
        if not self._open:
            self._forget(self._length)

    def _begin_section(self, block: Block) -> Iterator[Chunk]:
        assert block.level is not None  # noqa: S101  # for mypy: its caller asked
        if all(sentence.is_heading for sentence in self._open):
            pass  # headings in a row stay with what follows them
        else:
            while len(self._open) > self._carried:
                yield self._close(overlaps=False)
            self._open.clear()
            self._carried = 0
        while self._headings and self._headings[-1][0] >= block.level:
            self._headings.pop()
        self._headings.append((block.level, " ".join(block.text.split())[:MAX_HEADING_LETTERS]))
        self._section = " > ".join(title for _, title in self._headings if title)[:MAX_SECTION_LETTERS] or None

    def _sentences(self, block: Block, start: int) -> Iterator[_Sentence]:
        for span in sentences(block.text):
            tokens = self._count(block.text[span[0] : span[1]])
            if tokens <= self._max_tokens and span[1] - span[0] <= self._max_letters:
                yield self._sentence(block, start, span, tokens)
                continue
            for part in self._cut(block.text, span, tokens, self._overlap_tokens or self._max_tokens // ROOM):
                yield self._sentence(block, start, part, self._count(block.text[part[0] : part[1]]))

    def _sentence(self, block: Block, start: int, span: Span, tokens: int) -> _Sentence:
        is_heading = block.level is not None
        return _Sentence(start + span[0], start + span[1], tokens, block.page, self._section, is_heading)

    def _cut(self, text: str, span: Span, tokens: int, most: int) -> Iterator[Span]:
        """Parts of what is too long for one chunk: short ones, so that chunks are filled and overlap."""
        guess = max(1, (span[1] - span[0]) * most // max(tokens, 1))
        return pieces(
            text, span, fits=lambda part: self._count(part) <= most, guess=min(guess, self._max_letters)
        )  # fmt: skip

    def _fitted(self, sentence: _Sentence) -> Iterator[_Sentence]:
        """The sentence; cut, where only headings stand before it and it does not fit behind them."""
        taken = sum(one.tokens for one in self._open)
        free = self._max_tokens - taken
        if (
            self._open
            and all(one.is_heading for one in self._open)
            and not self._takes(sentence)
            and free >= self._max_tokens // ROOM
        ):
            text = self._between(sentence.start, sentence.end)
            for start, end in self._cut(text, (0, len(text)), sentence.tokens, free):
                tokens = self._count(text[start:end])
                yield _Sentence(
                    sentence.start + start, sentence.start + end, tokens, sentence.page, sentence.section, False
                )
        else:
            yield sentence

    def _is_better_apart(self, paragraph: list[_Sentence]) -> bool:
        """Whether a paragraph fits a chunk, but not this one, which is half full."""
        taken, more = (sum(one.tokens for one in some) for some in (self._open, paragraph))
        return (
            len(self._open) > self._carried
            and not all(one.is_heading for one in self._open)
            and taken >= self._max_tokens // 2
            and more <= self._max_tokens < taken + more
        )

    def _takes(self, sentence: _Sentence) -> bool:
        if not self._open:
            return True
        tokens = sum(one.tokens for one in self._open) + sentence.tokens
        return tokens <= self._max_tokens and sentence.end - self._open[0].start <= self._max_letters

    def _make_room(self) -> Iterator[Chunk]:
        if len(self._open) > self._carried:
            yield self._close(overlaps=True)
        else:  # what was carried over is too much
            self._open.pop(0)
            self._carried -= 1

    def _close(self, *, overlaps: bool, is_last: bool = False) -> Chunk:
        """The chunk of what is open. What it does not take, as tokens were counted by sentence, stays open."""
        whole, left = self._open, []  # type: list[_Sentence], list[_Sentence]
        while (tokens := self._count(text := self._between(whole[0].start, whole[-1].end))) > self._max_tokens:
            if len(whole) == 1:  # a letter may be of more tokens than a limit of one or two
                break
            if len(whole) - 1 <= self._carried:  # the new one is to be taken: less is carried over
                whole, self._carried = whole[1:], self._carried - 1
                continue
            whole, left = whole[:-1], [whole[-1], *left]
        body = next((one for one in whole if not one.is_heading), whole[-1])
        chunk = Chunk(
            index=self._index, text=text, start=whole[0].start, end=whole[-1].end, tokens=tokens, page=whole[0].page,
            section=body.section,
        )  # fmt: skip
        self._index += 1
        carried = self._overlap(whole) if overlaps and (left or not is_last) else []
        self._open, self._carried = carried + left, len(carried)
        self._forget(self._open[0].start if self._open else whole[-1].end)
        return chunk

    def _overlap(self, whole: list[_Sentence]) -> list[_Sentence]:
        """The last sentences that are short enough together; of one that is too long, its last words."""
        kept: list[_Sentence] = []
        free, last = self._overlap_tokens, whole[-1]
        for sentence in reversed(whole[1:]):  # never all of it
            if sentence.is_heading or self._count(self._between(sentence.start, last.end)) > free:
                break
            kept.insert(0, sentence)
        if kept or not free or last.is_heading:
            return kept
        text = self._between(last.start, last.end)
        guess = max(1, len(text) * free // max(last.tokens, 1))
        found = tail(text, (0, len(text)), fits=lambda part: self._count(part) <= free, guess=guess)
        if found is None or found[0] == 0:
            return []
        tokens = self._count(text[found[0] :])
        return [_Sentence(last.start + found[0], last.end, tokens, last.page, last.section, False)]

    def _count(self, text: str) -> int:
        return self._counter.count(text)

    def _between(self, start: int, end: int) -> str:
        return self._text[start - self._base : end - self._base]

    def _forget(self, before: int) -> None:
        self._text, self._base = self._text[before - self._base :], before


async def chunk_document(pages: AsyncIterable[Pages], chunker: Chunker) -> AsyncIterator[Chunk]:
    """Every chunk as soon as it is complete. Counting tokens runs in a thread, beside the event loop."""
    async for some in pages:
        for chunk in await asyncio.to_thread(_fed, chunker, some):
            yield chunk
    for chunk in chunker.finish():
        yield chunk


def _fed(chunker: Chunker, pages: Pages) -> list[Chunk]:
    return list(chunker.feed(pages))


async def batches(
    chunks: AsyncIterable[Chunk], *, most_chunks: int, most_tokens: int
) -> AsyncIterator[tuple[Chunk, ...]]:
    """The chunks in batches of at most so many, and of so many tokens together, where one alone is not more."""
    most_chunks = min(most_chunks, MAX_CHUNKS_PER_BATCH)
    batch: list[Chunk] = []
    tokens = 0
    async for chunk in chunks:
        if batch and (len(batch) == most_chunks or tokens + chunk.tokens > most_tokens):
            yield tuple(batch)
            batch, tokens = [], 0
        batch.append(chunk)
        tokens += chunk.tokens
    if batch:
        yield tuple(batch)
