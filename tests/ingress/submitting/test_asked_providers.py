"""What the ingress refuses since nobody there could do it."""

from typing import Any

import pytest

from ingress.http.problems import Problem
from schemas.events import ProviderOffer
from schemas.generation import GenerationConfig
from schemas.requests import AnyRequest, EmbeddingRequest, RagRequest, SearchRequest
from tests.factories import chat_request, user_updated
from tests.ingress.desk import Desk, FakeStore, Seen


async def test_a_parameter_that_the_named_provider_has_not_is_refused_before_anything_is_published(desk: Desk) -> None:
    async def ask(**given: Any) -> None:
        config = GenerationConfig(temperature=0.5, top_k=5, **given)
        request = chat_request(provider="openai", generation_config=config)
        await desk.submissions.accepted(user_updated(), request, callback_url=None)

    desk.offers = {"openai": [ProviderOffer(name="openai", parameters=("temperature", "top_p"))]}
    with pytest.raises(Problem) as caught:
        await ask()
    assert (caught.value.status, caught.value.code) == (400, "unsupported-parameter")
    assert caught.value.extra == {"parameters": ["top_k"]}
    assert desk.publisher.published == []
    await ask(strict=False)  # the stage leaves it out and says so
    desk.offers = {"openai": [ProviderOffer(name="openai")]}
    await ask()  # a worker of the version before does not tell what it has
    assert len(desk.publisher.published) == 2


@pytest.mark.parametrize(
    ("names", "absent"),
    [(("openai", "local"), "local is"), (("gemini", "openai"), "gemini is"), (("a", "b"), "a, b are")],
)
async def test_of_several_providers_each_must_be_there(desk: Desk, names: tuple[str, ...], absent: str) -> None:
    with pytest.raises(Problem) as caught:
        await desk.submissions.accepted(user_updated(), chat_request(provider=names), callback_url=None)
    assert (caught.value.status, caught.value.code) == (400, "no-such-provider")
    assert f"{absent} not present; present are: openai" in caught.value.detail
    assert caught.value.extra == {"providers": ["openai"]}
    assert desk.publisher.published == []


async def test_of_several_providers_each_must_have_the_parameters(desk: Desk) -> None:
    desk.present = ["local", "openai"]
    desk.offers = {
        "openai": [ProviderOffer(name="openai", parameters=("seed",))],
        "local": [ProviderOffer(name="local", parameters=("top_k",))],
    }
    request = chat_request(provider=("openai", "local"), generation_config=GenerationConfig(seed=1))
    with pytest.raises(Problem) as caught:
        await desk.submissions.accepted(user_updated(), request, callback_url=None)
    assert (caught.value.code, caught.value.extra) == ("unsupported-parameter", {"parameters": ["seed"]})
    assert "the provider local" in caught.value.detail


async def test_who_is_named_to_make_vectors_must_make_some(desk: Desk) -> None:
    desk.offers = {"openai": [ProviderOffer(name="openai", can=("stream",))]}
    asked: list[AnyRequest] = [
        RagRequest(question="Why?", embedding_provider="openai"), SearchRequest(query="why", provider="openai"),
        EmbeddingRequest(texts=("why",), provider="openai"),
    ]  # fmt: skip
    for request in asked:
        with pytest.raises(Problem) as caught:
            await desk.submissions.accepted(user_updated(), request, callback_url=None)
        assert (caught.value.status, caught.value.code) == (400, "no-such-provider")
        assert "makes no vectors" in caught.value.detail
    assert desk.publisher.published == []
    desk.offers = {"openai": [ProviderOffer(name="openai", can=("stream", "embeddings"))]}
    for request in asked:
        await desk.submissions.accepted(user_updated(), request, callback_url=None)
    assert len(desk.publisher.published) == 3


async def test_who_is_named_for_the_order_of_passages_must_be_there(desk: Desk) -> None:
    for names in ({"rerank_provider": "local"}, {"embedding_provider": "local"}, {"llm_provider": "local"}):
        with pytest.raises(Problem) as caught:
            await desk.submissions.accepted(
                user_updated(), RagRequest(question="Why?", **names), callback_url=None
            )  # fmt: skip
        assert caught.value.extra == {"providers": ["openai"]}


@pytest.mark.parametrize(
    ("can", "provider", "refused"),
    [
        ({"openai": ("stream",)}, "openai", True), ({"openai": ("stream", "images")}, "openai", False),
        ({"openai": ()}, "openai", False), ({}, "openai", False), ({}, None, False),
        ({"openai": ("stream",), "local": ("stream",)}, None, True),
        ({"openai": ("stream",), "local": ("stream", "images")}, None, False),
        ({"openai": ("stream",), "local": ()}, None, False),
    ],
)  # fmt: skip
async def test_where_nobody_sees_an_image_is_refused_before_it_is_stored(
    desk: Desk, can: dict[str, tuple[str, ...]], provider: str | None, refused: bool
) -> None:
    desk.offers = {name: [ProviderOffer(name=name, can=abilities)] for name, abilities in can.items()}
    seen, store = Seen(), FakeStore()
    desk.images._store = store
    request = seen.request(provider=provider)
    if not refused:
        await desk.submissions.accepted(user_updated(), request, callback_url=None, upload=seen.upload)
        return
    with pytest.raises(Problem) as caught:
        await desk.submissions.accepted(user_updated(), request, callback_url=None, upload=seen.upload)
    assert (caught.value.status, caught.value.code) == (400, "images-unsupported")
    assert (store.kept, desk.publisher.published) == ([], [])
    assert caught.value.extra["providers"] == []


@pytest.mark.parametrize(
    ("can", "refused"),
    [
        ({"openai": ("stream", "images"), "local": ("stream", "images")}, ""),
        ({"openai": ("stream", "images"), "local": ("stream",)}, "the provider local cannot"),
        ({"openai": ("stream",), "local": ("stream",)}, "the providers openai, local cannot"),
        ({"openai": ("stream", "images"), "local": ()}, ""),  # it does not tell
        ({"openai": (), "local": ("stream",)}, "the provider local cannot"),
    ],
)
async def test_of_several_providers_each_must_see(desk: Desk, can: dict[str, tuple[str, ...]], refused: str) -> None:
    desk.present = ["openai", "local"]
    desk.offers = {name: [ProviderOffer(name=name, can=abilities)] for name, abilities in can.items()}
    seen, desk.images._store = Seen(), FakeStore()
    request = seen.request(provider=("openai", "local"))
    if not refused:
        await desk.submissions.accepted(user_updated(), request, callback_url=None, upload=seen.upload)
        return
    with pytest.raises(Problem) as caught:
        await desk.submissions.accepted(user_updated(), request, callback_url=None, upload=seen.upload)
    seeing = [name for name, abilities in can.items() if "images" in abilities]
    assert (caught.value.status, caught.value.code, caught.value.extra) == (
        400, "images-unsupported", {"providers": seeing},
    )  # fmt: skip
    assert refused in caught.value.detail
    assert (", ".join(seeing) or "GET /providers") in caught.value.detail
    assert desk.publisher.published == []
