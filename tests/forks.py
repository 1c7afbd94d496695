"""The product's processes, forked from one that has imported it: to import it takes most of a process's start.

`Forks` is the tests' side. The other one, `python -m tests.forks`, reads a request from each line of its standard input
and answers it with a line; when its input ends, so do all that it has forked.
"""

import gc
import importlib
import inspect
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from processors.filter.prompt_policy import PromptPolicy
from tests import quick_hashes, quick_trust

ROOT = Path(__file__).parent.parent
MODULES = (
    "cli", "uvloop", "streams.worker", "ingress.app", "ingress.server", "transport.logs", "providers.openai_compatible",
)  # fmt: skip


class Forks:
    """Started when it is first needed, for all tests of a session. May be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parent: subprocess.Popen[str] | None = None
        self._number = 0

    def start(self, module: str, words: Sequence[str], *, environment: Mapping[str, str], log: Path) -> "Forked":
        """As `python -m module words`, in our folder, with its output at the end of `log`."""
        told = {"module": module, "words": words, "environment": dict(environment), "log": str(log)}
        return Forked(self, int(self.ask("start", told)))

    def ask(self, what: str, about: object) -> Any:
        """One request."""
        with self._lock:
            if self._parent is None:
                self._parent = subprocess.Popen(
                    [sys.executable, "-m", "tests.forks"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    text=True,
                )  # fmt: skip
            asked, answered = self._parent.stdin, self._parent.stdout
            assert asked is not None
            assert answered is not None
            self._number += 1
            asked.write(json.dumps([self._number, what, about]) + "\n")
            asked.flush()
            number, answer = json.loads(answered.readline())
            assert number == self._number, "an answer to another request"
            return answer

    def close(self) -> None:
        """End all of them."""
        if self._parent is not None:
            assert self._parent.stdin is not None
            # Said, and not only heard of by the end of its input: who has a copy of the pipe would keep that open.
            self._parent.stdin.write(json.dumps([0, "end", None]) + "\n")
            self._parent.communicate()
            self._parent = None


class Forked:
    """One process, with as much of `subprocess.Popen` as tests use."""

    def __init__(self, forks: Forks, pid: int) -> None:
        self._forks, self.pid = forks, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        if self.returncode is None:
            self.returncode = self._forks.ask("poll", self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _serve() -> dict[str, Any] | None:
    """Answer until the input ends, and then return None; in each child return what it is to be."""
    children: dict[int, int | None] = {}
    answer: int | None
    for line in sys.stdin:
        number, what, about = json.loads(line)
        if what == "end":
            break
        if what == "start":
            pid = os.fork()
            if pid == 0:
                return dict(about)
            children[pid], answer = None, pid
        else:
            if children[about] is None:
                ended, status = os.waitpid(about, os.WNOHANG)
                children[about] = os.waitstatus_to_exitcode(status) if ended else None
            answer = children[about]
        print(json.dumps([number, answer]), flush=True)
    for pid, code in children.items():
        if code is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return None


def _have_filter() -> None:
    """Compile the filter of prompts that nobody has set anything of: a worker of the gate has it from here."""
    rules: Any = importlib.import_module("streams.rules")
    made = PromptPolicy()
    made.warm()
    usual = {name: given.default for name, given in inspect.signature(PromptPolicy).parameters.items()}
    rules.PromptPolicy = lambda **given: made if usual | given == usual else PromptPolicy(**given)


def _main() -> None:
    quick_trust.use()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the tests end, and with them our input
    for name in MODULES:
        importlib.import_module(name)
    _have_filter()
    gc.freeze()  # what a child never touches is not copied for it; at its end that took a second
    told = _serve()
    if told is None:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log, nothing = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), os.open(os.devnull, os.O_RDONLY)
    for descriptor, file in ((0, nothing), (1, log), (2, log)):
        os.dup2(file, descriptor)
    os.close(log)
    os.close(nothing)
    importlib.import_module("processors.run_stage").JITTER.seed()  # or all had the same
    os.environ.clear()
    os.environ.update(told["environment"])
    if quick_hashes.DEAR_HASHES not in os.environ:
        quick_hashes.use()
    sys.argv[1:] = told["words"]
    runpy.run_module(told["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
