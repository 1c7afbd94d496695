"""`python -m bench.lora`: a LoRA on fifty examples, one epoch: how long, how much memory, and whether it has learnt."""

import argparse
import asyncio
import os
import resource
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from embedded.model import model_file
from processors.learning.training_ports import TrainingParameters, TrainingProgress
from providers.local_training import LocalTrainer
from settings import Settings
from tests.training.examples import EXAMPLES


async def measured(*, threads: int, lr: float, epochs: int, keep: Path | None) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = keep or made
        trainer = LocalTrainer(
            folder=Path(folder), python=Settings().local_training_python, model=model_file, threads=threads
        )
        if (why_not := trainer.unavailable()) is not None:
            raise SystemExit(why_not)
        began, first = time.monotonic(), 0.0

        async def tell(progress: TrainingProgress) -> None:
            nonlocal first
            first = first or time.monotonic()
            print(f"step {progress.step} of {progress.steps}: loss {progress.loss}", flush=True)

        trained = await trainer.train(
            str(uuid4()), EXAMPLES, TrainingParameters(epochs=epochs, lr=lr, batch_size=4), tell
        )
        ended = time.monotonic()
        size = sum(entry.stat().st_size for entry in os.scandir(folder))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{len(EXAMPLES)} examples, {epochs} epochs, lr {lr:g}, {threads} threads")
    print(f"time {ended - began:.0f} s, of which {first - began:.0f} s up to the first step")
    print(f"computing time {used.ru_utime + used.ru_stime:.0f} s, memory {used.ru_maxrss / 1024:.0f} MB at most")
    print(f"adapter {size / 1e6:.1f} MB")
    print(f"held-out loss {trained.held_out_loss_before:.3f} before, {trained.held_out_loss_after:.3f} after")
    for answer in trained.answers:
        print(f"  {answer.instruction}\n    before: {answer.before[:100]!r}\n    after:  {answer.after[:100]!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="the folder that the adapter is left in")
    asyncio.run(measured(**vars(parser.parse_args())))
