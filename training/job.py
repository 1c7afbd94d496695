"""What is to be learnt, and how; read from the standard input, a line of JSON first and then one for each example."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


class CannotTrainError(Exception):
    """Nothing can be made of this job; its words quote no example."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an adapter is made; what users say themselves is in `Job`.

    `rank`, `alpha`: of each pair of matrices, whose product is scaled by alpha / rank; `matrices`: which of each block
    get a pair, by llama.cpp's names. `tokens`: of an example, the rest is cut off. `clip`: the largest norm of a step.
    `warm_up`: the share of the steps in which the rate grows; from there on it falls to a tenth. `answers`: how many of
    the examples held out are answered before and after, with `answer_tokens` each.
    """

    rank: int = 8
    alpha: float = 16
    matrices: tuple[str, ...] = MATRICES
    tokens: int = 512
    clip: float = 1.0
    warm_up: float = 0.1
    seed: int = 20
    answers: int = 4
    answer_tokens: int = 64

    def check(self) -> None:
        """ValueError where it cannot be."""
        if not 1 <= self.rank <= 64 or not 0 < self.alpha <= 1024 or not 16 <= self.tokens <= 2048:
            raise ValueError("rank is 1-64, alpha up to 1024, tokens 16-2048")
        if not self.matrices or set(self.matrices) - set(MATRICES):
            raise ValueError(f"matrices are some of {', '.join(MATRICES)}")


@dataclass(frozen=True, slots=True)
class Example:
    """As `processors.learning.training_ports.TrainingExample`."""

    instruction: str
    input: str
    output: str

    @property
    def prompt(self) -> str:
        """What a user would ask: the instruction, and below it what it is about."""
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction


@dataclass(frozen=True, slots=True)
class Job:
    """`threads`: how many cores it may take; `model`: the GGUF file."""

    model: str
    epochs: int
    lr: float
    batch_size: int
    threads: int = 2
    recipe: Recipe = field(default_factory=Recipe)
    learnt: tuple[Example, ...] = ()
    held_out: tuple[Example, ...] = ()


def read_job(lines: Iterable[str]) -> Job:
    """The whole of it.

    Raises:
        ValueError, KeyError, TypeError: It is none.
    """
    told = iter(lines)
    head: dict[str, Any] = json.loads(next(told, "{}"))
    given = head.pop("recipe", {})
    recipe = Recipe(**given | ({"matrices": tuple(given["matrices"])} if "matrices" in given else {}))
    recipe.check()
    learnt: list[Example] = []
    held_out: list[Example] = []
    for line in told:
        example: dict[str, Any] = json.loads(line)
        (held_out if example.pop("held_out") else learnt).append(Example(**example))
    return Job(**head, recipe=recipe, learnt=tuple(learnt), held_out=tuple(held_out))
