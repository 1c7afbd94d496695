"""Security checklist 37 and 38: nobody finds, overwrites or deletes what is another user's; and the proof has teeth."""

import random
from uuid import UUID, uuid4

import pytest
from qdrant_client import models

from schemas.requests import Among
from tests.vectors.conftest import COLLECTION, DOCUMENT, VERSION, embedded, search, store, texts
from vectors import qdrant
from vectors.qdrant import QdrantRepository

USERS = [f"user-{n}" for n in range(50)]
WORDS = (
    "dog",
    "cat",
    "invoice",
    "contract",
    "river",
    "собака",
    "договор",
    "大学",
    "学生",
    "tax",
    "march",
    "budget",
    "zebra",
)


def _text(chance: random.Random, owner: str) -> str:
    return " ".join(chance.choices(WORDS, k=12)) + f" of-{owner}-only"


def _vector(chance: random.Random) -> tuple[float, ...]:
    return tuple(chance.gauss(0, 1) for _ in range(COLLECTION.dimensions))


async def _filled(vectors: QdrantRepository, chance: random.Random) -> list[tuple[str, UUID]]:
    """Every user has documents; some ids are the same for all of them."""
    documents = []
    for user in USERS:
        for document_id in (DOCUMENT, uuid4()):
            chunks = [embedded(n, _text(chance, user), *_vector(chance)) for n in range(chance.randint(1, 4))]
            version_id = VERSION if document_id == DOCUMENT else uuid4()
            await store(vectors, user, *chunks, document_id=document_id, version_id=version_id, source="shared.md")
            documents.append((user, document_id))
    return documents


async def _foreign(vectors: QdrantRepository, chance: random.Random, documents: list[tuple[str, UUID]]) -> int:
    """Chunks that came to somebody who does not own them, over many queries of every kind."""
    foreign = 0
    for user in USERS:
        for mode in ("hybrid", "dense", "keyword"):
            others = tuple(document_id for _, document_id in chance.sample(documents, 5))
            among = chance.choice([None, None, Among(sources=("shared.md",)), Among(documents=others)])
            query = " ".join([*chance.choices(WORDS, k=3), f"of-{chance.choice(USERS)}-only"])
            hidden = [uuid4()] if chance.random() < 0.3 else []
            found = await search(
                vectors, user, query, vector=_vector(chance), mode=mode, limit=chance.choice([1, 5, 50]),
                among=among, hidden=hidden,
            )  # fmt: skip
            foreign += sum(not one.chunk.text.endswith(f"of-{user}-only") for one in found)
            assert found or among or mode == "keyword"
    return foreign


async def test_fifty_users_never_see_each_others_chunks(vectors: QdrantRepository) -> None:
    chance = random.Random(37)
    assert await _foreign(vectors, chance, await _filled(vectors, chance)) == 0


async def test_without_the_filter_they_would(vectors: QdrantRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above has teeth."""
    chance = random.Random(37)
    documents = await _filled(vectors, chance)
    right = qdrant.of_user

    def without_user(user_id: str, **kwargs: object) -> models.Filter:
        found = right(user_id, **kwargs)  # type: ignore[arg-type]  # as it was called
        return found.model_copy(update={"must": list(found.must or [])[1:]})

    monkeypatch.setattr(qdrant, "of_user", without_user)
    assert await _foreign(vectors, chance, documents) > 100


async def test_equal_ids_of_two_users_do_not_overwrite_each_other(vectors: QdrantRepository) -> None:
    for user in ("alice", "bob"):
        await store(vectors, user, f"of {user}", document_id=DOCUMENT, version_id=VERSION)
    for user in ("alice", "bob"):
        assert texts(await search(vectors, user)) == [f"of {user}"]
        assert await vectors.count(user) == 1


async def test_what_one_user_deletes_the_other_keeps(vectors: QdrantRepository) -> None:
    for user in ("alice", "bob"):
        await store(vectors, user, "one", "two", document_id=DOCUMENT, version_id=VERSION)
    await vectors.delete_version("alice", COLLECTION, VERSION)
    assert (await vectors.count("alice"), await vectors.count("bob")) == (0, 2)
    await vectors.delete_document("alice", DOCUMENT)
    assert await vectors.count("bob", document_id=DOCUMENT) == 2


@pytest.mark.parametrize("method", ["search", "count", "delete_version", "delete_document"])
async def test_every_call_names_the_user(
    vectors: QdrantRepository, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Every filter that leaves the repository demands the user's id, whatever else it says."""
    await store(vectors, "alice", "text", document_id=DOCUMENT, version_id=VERSION)
    sent: list[models.Filter] = []
    client = vectors._client
    for name in ("query_batch_points", "count", "delete"):
        right = getattr(client, name)

        def recorded(*args: object, right: object = right, **kwargs: object) -> object:
            sent.extend(request.filter for request in kwargs.get("requests", ()))  # type: ignore[attr-defined]
            sent.extend([kwargs["count_filter"]] if "count_filter" in kwargs else [])  # type: ignore[list-item]
            sent.extend([kwargs["points_selector"].filter] if "points_selector" in kwargs else [])  # type: ignore[attr-defined]
            return right(*args, **kwargs)  # type: ignore[operator]

        monkeypatch.setattr(client, name, recorded)
    calls = {
        "search": lambda: search(vectors, "alice", "text", hidden=[uuid4()], among=Among(sources=("x",))),
        "count": lambda: vectors.count("alice", document_id=DOCUMENT),
        "delete_version": lambda: vectors.delete_version("alice", COLLECTION, VERSION),
        "delete_document": lambda: vectors.delete_document("alice", DOCUMENT),
    }
    await calls[method]()
    user = models.FieldCondition(key="user_id", match=models.MatchValue(value="alice"))
    assert sent
    assert all(user in (one.must or []) for one in sent)
