"""Whose model a name is."""

from typing import Any

import pytest

from ingress.http.problems import Problem
from ingress.openai_api.model_names import Model, Models
from schemas.events import MAX_OFFERED_MODELS, ProviderOffer


def offer(name: str, *models: str, **more: Any) -> ProviderOffer:
    return ProviderOffer(name=name, models=models, healthy=more.pop("healthy", True), **more)


def known(*offers: ProviderOffer) -> Models:
    told: dict[str, list[ProviderOffer]] = {}
    for one in offers:
        told.setdefault(one.name, []).append(one)
    return Models(told, allows=lambda name: name in ("openai", "lmstudio", "ollama"))


def refusal(models: Models, name: str) -> tuple[int, str, str]:
    with pytest.raises(Problem) as caught:
        models.find(name)
    return caught.value.status, caught.value.code, caught.value.detail


def test_a_model_has_its_whole_name_and_where_it_is_the_only_one_its_bare_one() -> None:
    models = known(offer("openai", "m", "shared"), offer("lmstudio", "shared"), offer("openai", "m", "late"))
    assert set(models.by_id) == {"openai/m", "m", "openai/shared", "lmstudio/shared", "openai/late", "late"}
    assert models.find("m") == models.find("openai/m") == Model("openai", "m")
    assert models.find("lmstudio/shared") == Model("lmstudio", "shared")
    status, code, detail = refusal(models, "shared")
    assert (status, code) == (404, "no-such-model")
    assert "lmstudio/shared or openai/shared" in detail


def test_a_name_with_a_slash_of_its_own_is_a_name_like_others() -> None:
    models = known(offer("lmstudio", "qwen/qwen3-4b", "openai/gpt-oss-20b"), offer("openai", "gpt-oss-20b"))
    assert models.find("qwen/qwen3-4b") == models.find("lmstudio/qwen/qwen3-4b") == Model("lmstudio", "qwen/qwen3-4b")
    assert models.find("openai/gpt-oss-20b") == Model("openai", "gpt-oss-20b")
    assert models.find("lmstudio/openai/gpt-oss-20b") == Model("lmstudio", "openai/gpt-oss-20b")


@pytest.mark.parametrize("name", ["nothing", "openai/nothing", "ollama/m", "gemini/m", "openai/", "/m", "openai", ""])
def test_a_model_that_there_is_not_is_a_404_with_some_that_there_are(name: str) -> None:
    status, code, detail = refusal(known(offer("openai", "m")), name)
    assert (status, code) == (404, "no-such-model")
    assert "openai/m" in detail


@pytest.mark.parametrize("offered", [offer("openai", "m", healthy=None), offer("openai", "m", healthy=False),
                                     offer("openai", *(f"m-{n}" for n in range(MAX_OFFERED_MODELS)))])  # fmt: skip
def test_a_provider_that_did_not_tell_all_its_models_is_asked_for_others(offered: ProviderOffer) -> None:
    assert known(offered).find("openai/another") == Model("openai", "another")
    assert refusal(known(offered), "another")[0] == 404


def test_while_no_worker_lives_a_whole_name_waits_for_one_and_a_bare_one_comes_again() -> None:
    assert known().find("openai/m") == Model("openai", "m")
    for name in ("m", "gemini/m"):
        assert refusal(known(), name)[:2] == (503, "not-ready")


def test_a_provider_that_is_not_allowed_has_no_models() -> None:
    assert known(offer("gemini", "g")).by_id == {}


def test_vectors_are_made_by_the_model_that_a_provider_is_set_to() -> None:
    models = known(offer("openai", "m", embedding_model="e-1"), offer("lmstudio", "l", "e-2"))
    assert {"openai/e-1", "e-1"} <= set(models.by_id)
    assert models.find_embedding("e-1") == models.find_embedding("openai/e-1") == Model("openai", "e-1")
    for name in ("m", "lmstudio/e-2", "nothing"):
        with pytest.raises(Problem) as caught:
            models.find_embedding(name)
        assert (caught.value.status, caught.value.code) == (404, "no-such-model")
    assert known().find_embedding("openai/e-1") == Model("openai", "e-1")
