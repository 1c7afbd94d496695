"""The training itself: loss on the answers only, AdamW, a seed."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy, pad

from training.job import Job
from training.words import NO_LOSS, Lesson, Words

TOKENS_AT_ONCE = 512  # in one pass, padding included: bounds memory whatever the batch
Tell = Callable[[int, int, int, float], None]  # epoch, step, steps, loss


def learn(model: Any, lessons: Sequence[Lesson], job: Job, tell: Tell) -> list[float]:
    """Go through them `job.epochs` times; returns the loss of each step, a mean over its answers' tokens."""
    recipe = job.recipe
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=job.lr, weight_decay=0.0)
    steps = job.epochs * math.ceil(len(lessons) / job.batch_size)
    warm = max(1, round(steps * recipe.warm_up))
    shuffled = torch.Generator().manual_seed(recipe.seed)
    losses: list[float] = []
    model.train()
    for epoch in range(1, job.epochs + 1):
        order = torch.randperm(len(lessons), generator=shuffled).tolist()
        for begin in range(0, len(order), job.batch_size):
            at = len(losses)
            share = (at + 1) / warm if at < warm else 1 - 0.9 * (at - warm) / max(1, steps - warm)
            for group in optimizer.param_groups:
                group["lr"] = job.lr * share
            losses.append(_step(model, [lessons[i] for i in order[begin : begin + job.batch_size]]))
            torch.nn.utils.clip_grad_norm_(weights, recipe.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            tell(epoch, len(losses), steps, losses[-1])
    model.eval()
    return losses


def loss_on(model: Any, lessons: Sequence[Lesson]) -> float | None:
    """The mean over their answers' tokens; None where there are none."""
    if not lessons:
        return None
    total, counted = 0.0, 0
    model.eval()
    with torch.no_grad():
        for some in _passes(lessons):
            loss, tokens = _sum_of_losses(model, some)
            total, counted = total + float(loss), counted + tokens
    return total / counted


def answers(model: Any, words: Words, prompts: Sequence[list[int]], *, most: int) -> list[str]:
    """What it says to each, always the likeliest; all at once, for each token reads all the weights whoever asks."""
    if not prompts:
        return []
    longest = max(map(len, prompts))
    left = [longest - len(prompt) for prompt in prompts]
    given = torch.tensor([[words.end] * more + prompt for more, prompt in zip(left, prompts, strict=True)])
    seen = torch.tensor([[0] * more + [1] * (longest - more) for more in left])
    with torch.no_grad():
        said = model.generate(input_ids=given, attention_mask=seen, max_new_tokens=most, do_sample=False)
    return [words.text(row[longest:].tolist()) for row in said]


def _step(model: Any, lessons: Sequence[Lesson]) -> float:
    """Gradients of a batch, gathered from as many passes as it takes; its loss."""
    counted = sum(token != NO_LOSS for lesson in lessons for token in lesson.wanted[1:])
    total = 0.0
    for some in _passes(lessons):
        loss, _ = _sum_of_losses(model, some)
        (loss / counted).backward()
        total += float(loss.detach())
    return total / counted


def _passes(lessons: Sequence[Lesson]) -> Iterator[list[Lesson]]:
    some: list[Lesson] = []
    for lesson in sorted(lessons, key=lambda lesson: len(lesson.tokens)):
        if some and (len(some) + 1) * len(lesson.tokens) > TOKENS_AT_ONCE:
            yield some
            some = []
        some.append(lesson)
    yield some


def _sum_of_losses(model: Any, lessons: Sequence[Lesson]) -> tuple[Any, int]:
    longest = max(len(lesson.tokens) for lesson in lessons)
    rows = [(torch.tensor(lesson.tokens), torch.tensor(lesson.wanted)) for lesson in lessons]
    tokens = torch.stack([pad(row, (0, longest - len(row))) for row, _ in rows])
    seen = torch.stack([pad(torch.ones_like(row), (0, longest - len(row))) for row, _ in rows])
    wanted = torch.stack([pad(row, (0, longest - len(row)), value=NO_LOSS) for _, row in rows])[:, 1:]
    inner = model.base_model.model
    hidden = inner.model(input_ids=tokens, attention_mask=seen, use_cache=False).last_hidden_state[:, :-1]
    asked = wanted != NO_LOSS
    # Only where an answer is: the words' scores of all other places would be most of the memory.
    scores = inner.lm_head(hidden[asked])
    return cross_entropy(scores.float(), wanted[asked], reduction="sum"), int(asked.sum())
