"""Which examples a training learns from, and which it is measured by."""

from collections.abc import Sequence
from hashlib import sha256

from processors.learning.training_ports import TrainingExample

MIN_EXAMPLES = 4  # with fewer there is nothing to learn from once one is held out
HELD_OUT_SHARE, MAX_HELD_OUT = 0.2, 8


def hold_out(examples: Sequence[TrainingExample]) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Those to learn from, and those held out: a fifth, from 1 to 8 of them; the same for the same examples.

    Which ones is decided by what they say and not by when they came, so that another example changes little.

    Args:
        examples: At least `MIN_EXAMPLES`.
    """
    held = min(MAX_HELD_OUT, max(1, round(len(examples) * HELD_OUT_SHARE)))
    by_lot = sorted(range(len(examples)), key=lambda index: _lot(examples[index]))
    chosen = set(by_lot[:held])
    learnt = [example for index, example in enumerate(examples) if index not in chosen]
    return learnt, [example for index, example in enumerate(examples) if index in chosen]


def _lot(example: TrainingExample) -> bytes:
    return sha256("\0".join((example.instruction, example.input, example.output)).encode()).digest()
