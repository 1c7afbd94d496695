"""What `VectorRepository` promises, on each engine."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from processors.documents.document_ports import Collection
from processors.errors import PermanentError
from schemas.requests import Among
from tests.vectors.conftest import COLLECTION, DOCUMENT, VERSION, embedded, search, store, texts
from vectors.qdrant import QdrantRepository


async def test_what_was_stored_comes_back_whole(vectors: QdrantRepository) -> None:
    chunk = embedded(3, "dogs bark", 0.6, 0.8, 0.0, 0.0)
    before = datetime.now(UTC)
    await store(vectors, "alice", chunk, document_id=DOCUMENT, version_id=VERSION, source="a/b.pdf")
    (found,) = await search(vectors, "alice", "dog")
    assert (found.document_id, found.version_id, found.source, found.chunk) == (
        DOCUMENT, VERSION, "a/b.pdf", chunk.chunk,
    )  # fmt: skip
    assert found.similarity == pytest.approx(0.6, abs=1e-3)
    assert found.ingested_at is not None
    assert before <= found.ingested_at <= datetime.now(UTC)


async def test_nothing_is_found_where_nothing_was_stored(vectors: QdrantRepository) -> None:
    assert await search(vectors, "alice", "dog") == []
    assert await vectors.count("alice") == 0
    await vectors.delete_version("alice", COLLECTION, VERSION)
    await vectors.delete_document("alice", DOCUMENT)


async def test_dense_search_goes_by_likeness(vectors: QdrantRepository) -> None:
    await store(
        vectors,
        "alice",
        embedded(0, "far", 0, 1, 0, 0),
        embedded(1, "near", 1, 0, 0, 0),
        embedded(2, "mid", 1, 1, 0, 0),
    )
    found = await search(vectors, "alice", "far", mode="dense", limit=2)
    assert texts(found) == ["near", "mid"]
    assert [one.score for one in found] == [one.similarity for one in found]
    assert [one.has_keyword for one in found] == [False, False]


async def test_keyword_search_goes_by_words_and_needs_no_vector(vectors: QdrantRepository) -> None:
    await store(vectors, "alice", "cats purr", "a dog barks and the dogs answer", "one dog among many other animals")
    found = await search(vectors, "alice", "the barking dog", mode="keyword", vector=None)
    assert texts(found) == ["a dog barks and the dogs answer", "one dog among many other animals"]
    assert {one.similarity for one in found} == {None}
    assert all(one.has_keyword for one in found)


async def test_a_rare_word_counts_for_more_than_a_common_one(vectors: QdrantRepository) -> None:
    await store(vectors, "alice", *[f"dog number {n}" for n in range(20)], "zebra number 21")
    found = await search(vectors, "alice", "dog zebra", mode="keyword", vector=None, limit=1)
    assert texts(found) == ["zebra number 21"]


async def test_how_rare_a_word_is_is_told_by_the_users_own_documents(vectors: QdrantRepository) -> None:
    await store(vectors, "alice", "zebra alone", *[f"dog number {n}" for n in range(10)])
    before = await search(vectors, "alice", "zebra dog", mode="keyword", vector=None)
    await store(vectors, "bob", *[f"zebra number {n}" for n in range(200)])
    after = await search(vectors, "alice", "zebra dog", mode="keyword", vector=None)
    assert [(one.chunk, one.score) for one in after] == [(one.chunk, one.score) for one in before]


async def test_hybrid_search_finds_what_either_finds_and_prefers_what_both_do(vectors: QdrantRepository) -> None:
    await store(
        vectors, "alice", embedded(0, "like it but other words", 1, 0.1, 0, 0), embedded(1, "invoice 4711", 0, 1, 0, 0),
        embedded(2, "invoice of both kinds", 1, 0, 0, 0),
    )  # fmt: skip
    found = await search(vectors, "alice", "invoice")
    assert texts(found)[0] == "invoice of both kinds"
    assert {one.chunk.index: one.has_keyword for one in found} == {0: False, 1: True, 2: True}
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


async def test_equal_results_have_one_order(vectors: QdrantRepository) -> None:
    await store(vectors, "alice", *["the very same words"] * 12)
    first = await search(vectors, "alice", "same words", limit=5)
    for _ in range(3):
        assert await search(vectors, "alice", "same words", limit=5) == first


async def test_hidden_versions_are_not_seen(vectors: QdrantRepository) -> None:
    old = await store(vectors, "alice", "old dog", document_id=DOCUMENT)
    await store(vectors, "alice", "new dog", document_id=DOCUMENT)
    assert texts(await search(vectors, "alice", "dog", hidden=[old])) == ["new dog"]
    assert texts(await search(vectors, "alice", "dog", hidden=[old], mode="keyword")) == ["new dog"]
    assert texts(await search(vectors, "alice", "dog", hidden=[old], mode="dense")) == ["new dog"]


async def test_only_the_sources_or_documents_asked_for_are_looked_through(vectors: QdrantRepository) -> None:
    other = uuid4()
    await store(vectors, "alice", "dog one", source="one.md", document_id=DOCUMENT)
    await store(vectors, "alice", "dog two", source="two.md", document_id=other)
    await store(vectors, "alice", "dog three", source="three.md")
    asked = {
        Among(sources=("one.md",)): {"dog one"},
        Among(documents=(other,)): {"dog two"},
        Among(sources=("one.md",), documents=(other,)): {"dog one", "dog two"},
        Among(): {"dog one", "dog two", "dog three"},
    }
    for among, expected in asked.items():
        assert set(texts(await search(vectors, "alice", "dog", among=among))) == expected
        assert await search(vectors, "bob", "dog", among=among) == []


async def test_storing_again_doubles_nothing(vectors: QdrantRepository) -> None:
    for _ in range(2):
        await store(vectors, "alice", "one", "two", version_id=VERSION, document_id=DOCUMENT)
    assert await vectors.count("alice") == 2
    assert await vectors.count("alice", document_id=DOCUMENT) == 2


async def test_a_version_goes_and_the_others_stay(vectors: QdrantRepository) -> None:
    old = await store(vectors, "alice", "one", "two", document_id=DOCUMENT)
    await store(vectors, "alice", "three", document_id=DOCUMENT)
    await vectors.delete_version("alice", COLLECTION, old)
    await vectors.delete_version("alice", COLLECTION, old)
    assert texts(await search(vectors, "alice", "one")) == ["three"]


async def test_a_document_goes_from_all_collections(vectors: QdrantRepository) -> None:
    larger = Collection("openai", "text-embedding-3-small", 8)
    await store(vectors, "alice", "one", document_id=DOCUMENT)
    await store(vectors, "alice", embedded(0, "two", *[1.0] * 8), document_id=DOCUMENT, collection=larger)
    await store(vectors, "alice", "three")
    assert await vectors.count("alice", document_id=DOCUMENT) == 2
    await vectors.delete_document("alice", DOCUMENT)
    assert await vectors.count("alice", document_id=DOCUMENT) == 0
    assert await vectors.count("alice") == 1


async def test_models_of_one_slug_have_a_collection_each(vectors: QdrantRepository) -> None:
    for model in ("a/b", "a-b", "A b"):
        await store(vectors, "alice", model, collection=Collection("ollama", model, 4))
    for model in ("a/b", "a-b", "A b"):
        assert texts(await search(vectors, "alice", "", collection=Collection("ollama", model, 4))) == [model]


async def test_many_may_make_a_collection_at_once(vectors: QdrantRepository) -> None:
    await asyncio.gather(*(store(vectors, f"user-{n}", "text") for n in range(8)))
    assert [await vectors.count(f"user-{n}") for n in range(8)] == [1] * 8


async def test_a_chunk_without_words_is_found_by_its_vector(vectors: QdrantRepository) -> None:
    await store(vectors, "alice", "!!!", "...")
    assert sorted(texts(await search(vectors, "alice", "?"))) == ["!!!", "..."]
    assert await search(vectors, "alice", "?", mode="keyword") == []


async def test_a_vector_of_another_length_is_refused(vectors: QdrantRepository) -> None:
    await store(vectors, "alice", "text")
    with pytest.raises(PermanentError, match="3 numbers") as stored:
        await store(vectors, "alice", embedded(0, "text", 1, 0, 0))
    with pytest.raises(PermanentError, match="3 numbers"):
        await search(vectors, "alice", "text", vector=(1, 0, 0))
    assert stored.value.code == "vectors-dimensions"
    with pytest.raises(PermanentError, match="needs the query's vector"):
        await search(vectors, "alice", "text", vector=None)


async def test_any_name_may_be_a_users(vectors: QdrantRepository) -> None:
    names = ["alice", "Alice", "alice ", "a*", "*", '"', "жанна", "a" * 200, "a\u0000b"]
    for name in names:
        await store(vectors, name, f"of {name}", version_id=VERSION, document_id=DOCUMENT, source=name)
    for name in names:
        assert texts(await search(vectors, name)) == [f"of {name}"]
