"""What the process that reads a file cannot do, and how it ends."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from parsing.bounds import Bounds
from parsing.parser import ROOT, ChildParser
from processors.errors import PermanentError, RetryableError
from tests.parsing import bombs
from tests.parsing.office_files import docx_of, kept
from tests.parsing.pdf_files import pdf_of
from tests.parsing.reading import pages_of, refusal_of
from tests.waiting import until

MANY_PAGES = pdf_of([f"Page {at} of a document that is long enough to be looked at.\n" * 20 for at in range(600)])


def readers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "parsing.child" in child.cmdline():
                found.append(child)
    return found


@contextlib.asynccontextmanager
async def reading(path: Path) -> AsyncIterator[psutil.Process]:
    """A child in the middle of a file: what it says is not read, and so it waits."""
    pages = ChildParser().parse(path)
    await anext(pages)
    (child,) = readers()
    try:
        yield child
    finally:
        await pages.aclose()


async def test_child_has_no_secrets_no_network_and_narrow_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SECRET_KEY", "canary-of-a-secret")
    async with reading(kept(tmp_path, MANY_PAGES)) as child:
        environment = child.environ()
        assert "canary-of-a-secret" not in str(environment)
        assert set(environment) <= {
            "PYTHONPATH", "PYTHONUTF8", "PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS", "PATH", "HOME", "LC_ALL", "TZ",
            "DO_NOT_TRACK", "MALLOC_ARENA_MAX",
        }  # fmt: skip
        assert child.nice() == 19
        assert _niceness_of_its_session(child.pid) in (19, None)
        assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
        assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert child.rlimit(psutil.RLIMIT_NPROC) == (0, 0)
        assert child.rlimit(psutil.RLIMIT_AS)[1] < 640 << 20
        assert 20 <= child.rlimit(psutil.RLIMIT_CPU)[0] < 90
        assert not [found for found in child.open_files() if Path(found.path) != tmp_path / "file"]
        network = [os.readlink(f"/proc/{pid}/ns/net") for pid in (child.pid, os.getpid())]
        if _may_leave_the_network():
            assert network[0] != network[1]


def _niceness_of_its_session(pid: int) -> int | None:
    """As sched(7) has it; None: this kernel has no autogroups."""
    path = Path(f"/proc/{pid}/autogroup")
    told = path.read_text() if path.exists() else ""
    return int(told.rpartition(" ")[2]) if told else None


def _may_leave_the_network() -> bool:
    code = "from parsing.confined import without_network; raise SystemExit(not without_network())"
    return _python(code).returncode == 0


def _python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "deed",
    [
        "import socket; socket.socket()",
        "import socket; socket.getaddrinfo('localhost', 80)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:PORT')",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.fork()",
        "open('TARGET', 'w')",
        "open('TARGET', 'ab')",
        "import os; os.open('TARGET', os.O_CREAT | os.O_WRONLY)",
        "import os; os.remove('HERE')",
        "import tempfile; tempfile.mkstemp()",
        "import ctypes; ctypes.CDLL('libc.so.6')",
    ],
)
def test_python_code_is_stopped(tmp_path: Path, deed: str) -> None:
    here = kept(tmp_path, b"", "here")
    deed = deed.replace("TARGET", str(tmp_path / "made")).replace("HERE", str(here))
    done = _python(f"from parsing.confined import forbid; forbid()\n{deed}")
    assert "ForbiddenError" in done.stderr
    assert os.listdir(tmp_path) == ["here"]


def test_kernel_lets_nobody_out_where_it_can() -> None:
    if not _may_leave_the_network():
        pytest.skip("this kernel lets no process give up its network")
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = _python(
            "from parsing.confined import without_network; without_network()\n"
            f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        )
    assert "OSError" in done.stderr
    assert "unreachable" in done.stderr


async def test_endless_work_ends(tmp_path: Path) -> None:
    path = kept(tmp_path, bombs.busy_pdf())
    error = await refusal_of(path, Bounds(cpu_s=1, cpu_per_page_s=0))
    assert (error.code, "more than 1 s of computing time" in error.message) == ("document-too-large", True)
    assert not readers()


async def test_endless_silence_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parsing").mkdir()
    said = b"import time\nwhile time.process_time() < 0.2: pass\ntime.sleep(600)"
    kept(tmp_path / "parsing", said, "child.py")
    monkeypatch.setattr("parsing.parser.ROOT", tmp_path)
    error = await refusal_of(kept(tmp_path, b"text"), Bounds(cpu_s=0.3, idle_s=3))
    assert (error.code, "for 3 s nothing more" in error.message) == ("document-too-large", True)
    assert not readers()


async def test_memory_is_bounded(tmp_path: Path) -> None:
    path = kept(tmp_path, ("Слово за словом.\n" * 2_000_000).encode())
    error = await refusal_of(path, Bounds(memory_bytes=48 << 20))
    assert error.code == "document-too-large"
    assert "48 MiB of memory" in error.message


@pytest.mark.parametrize(
    ("bounds", "content", "said"),
    [
        (Bounds(pages=599), MANY_PAGES, "it has 600 pages, and 599 are read at most"),
        (Bounds(letters=5_000), MANY_PAGES, "more than 5,000 letters"),
        (Bounds(pieces=300), MANY_PAGES, "more than 300 paragraphs"),
        (Bounds(archive_bytes=1 << 10), docx_of([("x", None)]), "0 MiB are unpacked"),
    ],
)
async def test_document_is_bounded(tmp_path: Path, bounds: Bounds, content: bytes, said: str) -> None:
    error = await refusal_of(kept(tmp_path, content), bounds)
    assert error.code == "document-too-large"
    assert said in error.message
    assert "split the document" in error.message


async def test_long_document_may_compute_longer(tmp_path: Path) -> None:
    pages, seconds = ChildParser().parse(kept(tmp_path, MANY_PAGES)), {}
    async for some in pages:
        if some.read in (4, 300):  # the pipe holds less than the rest: the child is waiting
            (child,) = readers()
            seconds[some.read] = child.rlimit(psutil.RLIMIT_CPU)[0]
    assert 20 <= seconds[4] < 45 <= seconds[300]


async def test_machine_that_is_too_busy_is_tried_again_later(tmp_path: Path) -> None:
    pages = ChildParser(Bounds(idle_s=3)).parse(kept(tmp_path, bombs.busy_pdf()))
    task = asyncio.ensure_future(anext(pages))
    (child,) = await until(readers)
    child.send_signal(signal.SIGSTOP)
    with pytest.raises(RetryableError) as raised:
        await task
    assert raised.value.code == "parser-starved"
    assert not readers()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_death_is_an_error(tmp_path: Path, number: signal.Signals) -> None:
    pages = ChildParser().parse(kept(tmp_path, bombs.busy_pdf()))
    task = asyncio.ensure_future(anext(pages))
    (child,) = await until(readers)
    child.send_signal(number)
    with pytest.raises(PermanentError) as raised:
        await task
    assert raised.value.code == ("document-too-large" if number == signal.SIGKILL else "document-unreadable")


@pytest.mark.parametrize(
    "said",
    [
        'print("nonsense")', "print('{\"pieces\": [[1, 2, 3]]}')", 'print("x" * 3_000_000)',
        "print('{\"pieces\": [[\"' + 'x' * 40_000 + '\", null, null]]}')", "print('{\"done\": true}', end='')", "pass",
    ],
    ids=["no json", "other types", "long line", "long piece", "cut line", "nothing"],
)  # fmt: skip
async def test_nonsense_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    (tmp_path / "parsing").mkdir()
    kept(tmp_path / "parsing", said.encode(), "child.py")
    monkeypatch.setattr("parsing.parser.ROOT", tmp_path)
    error = await refusal_of(kept(tmp_path, b"text"))
    assert error.code == "document-unreadable"


async def test_cancelling_ends_the_child(tmp_path: Path) -> None:
    task = asyncio.ensure_future(pages_of(kept(tmp_path, bombs.busy_pdf())))
    (child,) = await until(readers)
    task.cancel()
    async with asyncio.timeout(5):  # by itself it would go on for longer
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not child.is_running()


PARENT = """
import asyncio, sys
from pathlib import Path
from parsing.parser import ChildParser
async def read():
    async for _ in ChildParser().parse(Path(sys.argv[1])): pass
asyncio.run(read())
"""


async def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    path = kept(tmp_path, bombs.busy_pdf())
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(path)], cwd=ROOT)  # noqa: ASYNC220  # it ends at once
    try:
        (child,) = await until(lambda: psutil.Process(parent.pid).children())
        await until(lambda: child.nice() == 19)  # it has begun: before that it looks whether its parent lives
    finally:
        parent.kill()
        parent.wait()
    await until(lambda: not child.is_running(), within_s=5)
