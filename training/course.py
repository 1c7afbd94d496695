"""From a job to an adapter: measured, trained, measured again, written."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from training.adapter_file import AdapterFile
from training.job import CannotTrainError, Job
from training.learning import answers, learn, loss_on
from training.model import make_model, read_file
from training.telling import MAX_TEXT, tell
from training.words import NO_LOSS, Lesson, Words


@dataclass(frozen=True, slots=True)
class Pupil:
    """A model that is to learn, what its file says of it, and its words."""

    model: Any
    facts: dict[str, Any]
    words: Words


def ready(job: Job) -> Pupil:
    """Load the model.

    Raises:
        CannotTrainError: It is of another kind.
    """
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.recipe.seed)
    facts, reader = read_file(job.model)
    return Pupil(make_model(facts, reader, job.recipe), facts, Words(facts))


def run_course(job: Job, pupil: Pupil, adapter: AdapterFile) -> dict[str, Any]:
    """All the rest; returns what is told at the end.

    Raises:
        CannotTrainError: Nothing can be learnt of these examples.
        ArithmeticError: The loss has become none.
        OSError: There is no room for the adapter.
    """
    model, words = pupil.model, pupil.words
    adapter.reserve(model)
    lessons, held_out = (
        [
            lesson
            for lesson in (words.lesson(example, most=job.recipe.tokens) for example in examples)
            if _teaches(lesson)
        ]
        for examples in (job.learnt, job.held_out)
    )
    if not lessons:
        raise CannotTrainError(f"no example leaves room for an answer within {job.recipe.tokens} tokens")
    asked = [(example, words.prompt(example)) for example in job.held_out][: job.recipe.answers]
    asked = [(example, prompt[: job.recipe.tokens]) for example, prompt in asked]

    def said() -> list[str]:
        texts = answers(model, words, [prompt for _, prompt in asked], most=job.recipe.answer_tokens)
        tell(loading=True)  # it is alive, as slow as it may be
        return [text[:MAX_TEXT] for text in texts]

    tell(loading=True)
    loss_before, before = loss_on(model, held_out), said()
    losses = learn(model, lessons, job, _tell_step)
    loss_after, after = loss_on(model, held_out), said()
    if not all(map(math.isfinite, [*losses, loss_after or 0.0])):
        raise ArithmeticError("the loss has grown without end: choose a smaller lr")
    adapter.write(model, pupil.facts, job.recipe)
    return {
        "losses": losses, "held_out_loss_before": loss_before, "held_out_loss_after": loss_after,
        "answers": [
            {
                "instruction": example.instruction, "input": example.input, "expected": example.output,
                "before": bare, "after": taught,
            }
            for (example, _), bare, taught in zip(asked, before, after, strict=True)
        ],
    }  # fmt: skip


def _teaches(lesson: Lesson) -> bool:
    return any(token != NO_LOSS for token in lesson.wanted[1:])


def _tell_step(epoch: int, step: int, steps: int, loss: float) -> None:
    if not math.isfinite(loss):
        raise ArithmeticError("the loss has grown without end: choose a smaller lr")
    tell(epoch=epoch, step=step, steps=steps, loss=round(loss, 5))
