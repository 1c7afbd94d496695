"""What of the trainer needs no torch: its job, and how the rows of a matrix lie."""

import json

import numpy as np
import pytest

from training.job import Example, Recipe, read_job
from training.names import to_llama_order, to_torch_order

HEAD = {"model": "m.gguf", "epochs": 2, "lr": 0.001, "batch_size": 4, "threads": 1}


def lines(*more: dict[str, object], **head: object) -> list[str]:
    return [json.dumps(HEAD | head), *map(json.dumps, more)]


def test_a_job_is_read_whole() -> None:
    learnt = {"instruction": "Say it.", "input": "", "output": "It.", "held_out": False}
    held = {"instruction": "Translate.", "input": "Hallo", "output": "Hello", "held_out": True}
    job = read_job(lines(learnt, held, recipe={"rank": 4, "matrices": ["attn_q"]}))
    assert (job.epochs, job.lr, job.batch_size, job.threads) == (2, 0.001, 4, 1)
    assert job.recipe == Recipe(rank=4, matrices=("attn_q",))
    assert job.learnt == (Example("Say it.", "", "It."),)
    assert [example.prompt for example in (*job.learnt, *job.held_out)] == ["Say it.", "Translate.\n\nHallo"]


@pytest.mark.parametrize(
    "recipe", [{"rank": 0}, {"rank": 65}, {"alpha": 0}, {"tokens": 4096}, {"matrices": []}, {"matrices": ["output"]}]
)
def test_a_recipe_that_cannot_be_is_refused(recipe: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        read_job(lines(recipe=recipe))


@pytest.mark.parametrize("told", [[], ["nonsense"], ["{}"], [*lines(unknown=1)], [*lines(), '{"input": ""}']])
def test_what_is_no_job_is_refused(told: list[str]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        read_job(told)


def test_rows_lie_as_llama_cpp_has_them() -> None:
    heads, each = 3, 8
    rows = np.arange(heads * each, dtype=np.float32).repeat(2).reshape(-1, 2)
    turned = to_llama_order(rows, heads)
    # torch turns row i of a head with row i + half; llama.cpp turns neighbours.
    assert turned[:4, 0].tolist() == [0, 4, 1, 5]
    assert turned[each : each + 4, 1].tolist() == [8, 12, 9, 13]
    assert (to_torch_order(turned, heads) == rows).all()
