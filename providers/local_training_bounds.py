"""How much a training may take."""

from dataclasses import dataclass

MIB = 1024 * 1024
MAX_STEPS = 200_000  # 20 epochs of 10,000 examples, one by one
MAX_LINE_BYTES = 8 * MIB  # the last one: a loss for each step, and what was said to a few examples
MAX_ANSWERS = 8
MAX_OTHER_LINES = 2 * MAX_ANSWERS + 4


@dataclass(frozen=True, slots=True)
class TrainingBounds:
    """Of one training. `memory_bytes`: address space beside what torch and the model take; `idle_s`: without a word.

    `cpu_s`: computing time. `file_bytes`: of the adapter. `served_within_s`: until the server has loaded it.
    """

    memory_bytes: int = 2048 * MIB
    cpu_s: float = 43_200
    idle_s: float = 600
    file_bytes: int = 64 * MIB
    served_within_s: float = 180
