"""Chunks are exact parts of the document, never too long, and none of it is missing."""

from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.documents.chunk_document import MAX_LETTERS, Chunker, batches, chunk_document
from processors.documents.document_ports import Block, Pages
from providers.token_counters import EstimatedTokens, chunk_tokens, token_counter
from schemas.events import Chunk


class Words:
    """Counts words."""

    def count(self, text: str) -> int:
        return len(text.split())


class Shifty:
    """Counts a whole as more than the sum of its parts, as no tokenizer should."""

    def count(self, text: str) -> int:
        return len(text.split()) + len(text) // 40


def chunks_of(blocks: Sequence[Block], *, most: int = 20, overlap: int = 0, counter: object = None) -> list[Chunk]:
    chunker = Chunker(counter=counter or Words(), max_tokens=most, overlap_tokens=overlap)  # type: ignore[arg-type]
    return [*chunker.feed(Pages(tuple(blocks), 0, None)), *chunker.finish()]


def text_of(blocks: Iterable[Block]) -> str:
    return "\n".join(block.text for block in blocks)


def sentence(words: int, name: str = "w") -> str:
    return " ".join(f"{name}{at}" for at in range(words)).capitalize() + "."


LETTERS = st.text(
    alphabet=st.one_of(
        st.sampled_from("  \n\n..,aé中人。？مرحبا؟е\u0301👩\u200d👧🇧🇪"), st.characters(exclude_categories=["Cs"])
    ),
    max_size=200,
)
BLOCKS = st.lists(
    st.builds(
        Block,
        text=st.one_of(LETTERS, st.sampled_from(["x" * 300, sentence(70), "中" * 90, sentence(5) + " " + sentence(9)])),
        page=st.one_of(st.none(), st.integers(1, 9)),
        level=st.one_of(st.none(), st.none(), st.integers(1, 4)),
    ),
    max_size=8,
)
COUNTERS = st.sampled_from([Words(), Shifty(), EstimatedTokens(), token_counter("local")])


@settings(max_examples=200, deadline=None)
@given(BLOCKS, COUNTERS, st.integers(12, 60), st.integers(0, 20), st.randoms())
def test_chunks_are_exact_parts_that_fit_and_cover_all(blocks, counter, most, overlap, random) -> None:
    text = text_of(blocks)
    found = chunks_of(blocks, most=most, overlap=overlap, counter=counter)
    assert [chunk.index for chunk in found] == list(range(len(found)))
    covered = [False] * len(text)
    for chunk in found:
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text.strip() == chunk.text != ""
        assert chunk.tokens == counter.count(chunk.text)
        assert chunk.tokens <= most
        assert len(chunk.text) <= MAX_LETTERS
        covered[chunk.start : chunk.end] = [True] * (chunk.end - chunk.start)
    assert all(seen or letter.isspace() for seen, letter in zip(covered, text, strict=True))
    for first, second in pairwise(found):
        assert first.start < second.start
        assert first.end < second.end
        assert counter.count(text[second.start : first.end]) <= overlap
    # However the blocks come, the chunks are the same.
    chunker = Chunker(counter=counter, max_tokens=most, overlap_tokens=overlap)
    again: list[Chunk] = []
    at = 0
    while at < len(blocks):
        step = random.randint(1, 3)
        again += chunker.feed(Pages(tuple(blocks[at : at + step]), at, None))
        at += step
    assert [*again, *chunker.finish()] == found


def test_chunk_tells_page_and_headings() -> None:
    found = chunks_of(
        [
            Block("Rights", 1, 1), Block("Freedom", 1, 2), Block(sentence(10), 1), Block("Work", 2, 2),
            Block(sentence(15), 2), Block(sentence(15, "v"), 3), Block("Duties", 3, 1), Block(sentence(3), 3),
        ]
    )  # fmt: skip
    assert [(chunk.page, chunk.section) for chunk in found] == [
        (1, "Rights > Freedom"), (2, "Rights > Work"), (3, "Rights > Work"), (3, "Duties"),
    ]  # fmt: skip
    assert found[0].text.startswith("Rights\nFreedom\nW0")


def test_no_chunk_runs_over_a_heading_and_nothing_is_carried_over_it() -> None:
    found = chunks_of([Block(sentence(4)), Block("Next", None, 1), Block(sentence(4, "v"))], overlap=8)
    assert [chunk.text for chunk in found] == [sentence(4), "Next\n" + sentence(4, "v")]


def test_paragraph_that_fits_is_not_parted() -> None:
    paragraph = f"{sentence(6)} {sentence(6, 'v')}"
    found = chunks_of([Block(sentence(12, "u")), Block(paragraph)])
    assert [chunk.text for chunk in found] == [sentence(12, "u"), paragraph]


def test_heading_stays_with_what_follows_it_though_that_is_long() -> None:
    found = chunks_of([Block("A title", None, 1), Block(sentence(50))])
    assert found[0].text.startswith("A title\nW0")
    assert len(found) < 6


def test_next_chunk_begins_with_the_last_sentences() -> None:
    found = chunks_of([Block(" ".join(sentence(5, name) for name in "abcdefg"))], overlap=6)
    assert [chunk.text.split()[0] for chunk in found] == ["A0", "D0"]
    assert found[0].text.endswith(sentence(5, "d"))


def test_of_a_long_sentence_the_last_words_are_carried_over() -> None:
    found = chunks_of([Block(f"{sentence(18, 'a')} {sentence(10, 'b')}")], overlap=4)
    assert [chunk.text.split()[0] for chunk in found] == ["A0", "a14"]


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("English", "All human beings are born free and equal in dignity and rights. "),
        ("Russian", "Все люди рождаются свободными и равными в своем достоинстве и правах. "),
        ("Chinese", "人人生而自由，在尊严和权利上一律平等。"),
        ("Arabic", "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق. "),
    ],
)
@pytest.mark.parametrize("provider", ["local", "openai"])
def test_chunks_of_any_script_are_filled_with_whole_sentences(script: str, text: str, provider: str) -> None:
    most = chunk_tokens(provider, 128)
    counter = token_counter(provider)
    found = chunks_of([Block(text * 40, 1)], most=most, overlap=32, counter=counter)
    assert len(found) > 4
    for chunk in found:
        assert chunk.text.endswith(text.strip()[-1])
        assert chunk.text.startswith(text[:3])
    one = counter.count(text)
    assert all(chunk.tokens > most - 2 * one for chunk in found[:-1])


def test_text_without_any_boundary_is_cut() -> None:
    found = chunks_of([Block("中" * 5_000)], most=100, overlap=10, counter=EstimatedTokens())
    assert all(chunk.tokens <= 100 for chunk in found)
    assert found[-1].end == 5_000


def test_memory_does_not_grow_with_the_document() -> None:
    chunker = Chunker(counter=Words(), max_tokens=50, overlap_tokens=10)
    for at in range(300):
        for _ in chunker.feed(Pages((Block(sentence(100, f"n{at}x"), at),), at, None)):
            pass
        assert len(chunker._text) < 5_000


async def test_chunks_come_while_the_document_is_read() -> None:
    read = 0

    async def pages() -> AsyncIterator[Pages]:
        nonlocal read
        for at in range(20):
            read = at
            yield Pages((Block(sentence(20), at),), at, 20)

    chunks = chunk_document(pages(), Chunker(counter=Words(), max_tokens=20))
    await anext(chunks)
    assert read < 3
    assert len([chunk async for chunk in chunks]) == 19


async def test_batches_hold_so_many_chunks_and_tokens() -> None:
    async def chunks(*tokens: int) -> AsyncIterator[Chunk]:
        for at, count in enumerate(tokens):
            yield Chunk(index=at, text="x", start=0, end=1, tokens=count)

    async def sizes(most_chunks: int, most_tokens: int, *tokens: int) -> list[list[int]]:
        made = batches(chunks(*tokens), most_chunks=most_chunks, most_tokens=most_tokens)
        return [[chunk.tokens for chunk in batch] async for batch in made]

    assert await sizes(3, 100, 10, 10, 10, 10) == [[10, 10, 10], [10]]
    assert await sizes(9, 25, 10, 10, 10, 30, 1) == [[10, 10], [10], [30], [1]]
    assert [len(batch) for batch in await sizes(60, 9_999, *[1] * 70)] == [32, 32, 6]
    assert await sizes(3, 100) == []
