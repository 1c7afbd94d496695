"""`POST /v1/embeddings`: what is asked for, and how vectors are told."""

import struct
from base64 import b64encode
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse
from pydantic import ValidationError

from ingress.http.problems import Problem
from ingress.openai_api.embeddings import EmbeddingsBody, told
from ingress.openai_api.model_names import Model
from schemas.requests import MAX_EMBEDDED_CHARS, MAX_EMBEDDED_TEXTS, EmbeddingRequest

MODEL = Model("openai", "e-1")
PACKED = [b64encode(struct.pack("<2f", *vector)).decode() for vector in ((0.25, -0.5), (1.0, 2.0))]
RESULT = {"model": "e-1", "dimensions": 2, "embeddings": PACKED, "usage": {"prompt_tokens": 7, "total_tokens": 7}}


def request(given: Any, **more: Any) -> EmbeddingRequest:
    return EmbeddingsBody.model_validate({"model": "e-1", "input": given, **more}).request(MODEL)


def test_one_text_or_a_list_of_them_is_asked_for() -> None:
    assert request("a") == EmbeddingRequest(texts=("a",), provider="openai")
    assert request(["a", "b"], timeout=5, dimensions=None).texts == ("a", "b")


@pytest.mark.parametrize(
    ("given", "more", "param"),
    [
        ([], {}, "input"), ("", {}, "input"), (" ", {}, "input"), (["a", ""], {}, "input"), ("\x00", {}, "input"),
        ([1, 2], {}, "input"), ([[1], [2]], {}, "input"), ({"a": 1}, {}, "input"), (7, {}, "input"),
        (["a"] * (MAX_EMBEDDED_TEXTS + 1), {}, "input"), (["x" * (MAX_EMBEDDED_CHARS // 2 + 1)] * 2, {}, "input"),
        ("a", {"dimensions": 256}, "dimensions"), ("a", {"colour": "red"}, "colour"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_its_name(given: Any, more: dict[str, Any], param: str) -> None:
    with pytest.raises(Problem) as caught:
        request(given, **more)
    assert (caught.value.status, caught.value.extra["param"]) == (400, param)
    assert "xxxx" not in caught.value.detail


@pytest.mark.parametrize("more", [{"encoding_format": "hex"}, {"input": None}, {"model": ""}, {"user": 7}])
def test_a_field_of_another_kind_does_not_fit(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EmbeddingsBody.model_validate({"model": "e-1", "input": "a", **more})


def test_vectors_are_told_as_numbers_or_packed() -> None:
    numbers = CreateEmbeddingResponse.model_validate(told(RESULT, as_numbers=True), strict=True)
    assert [one.embedding for one in numbers.data] == [[0.25, -0.5], [1.0, 2.0]]
    assert (numbers.data[1].index, numbers.model, numbers.usage.total_tokens) == (1, "e-1", 7)
    packed = told({**RESULT, "usage": None}, as_numbers=False)
    assert [one["embedding"] for one in packed["data"]] == PACKED
    assert packed["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


def test_the_largest_answer_that_there_may_be_fits_into_a_record() -> None:
    vector = b64encode(struct.pack("<4096f", *([0.1] * 4096)))
    assert MAX_EMBEDDED_TEXTS * (len(vector) + 3) < 1_048_576 - 2 * 8192
