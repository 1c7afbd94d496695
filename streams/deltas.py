"""Tells answers piece by piece on `completion-streamed`, while they come.

A record is worth it only for an answer that takes time: one that is whole within `FIRST_WITHIN_S` is in `job-finished`
and nowhere else. One record of an execution is on its way at a time, so its pieces lie in order and without a gap; what
comes meanwhile goes into the next one.

But for its first piece, which goes at once, an execution tells at moments that all of a process have in common: what
costs is a request to the brokers, and those of their readers that it answers, more than the pieces that are in it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from math import ceil
from typing import Any, Self
from uuid import UUID

from aiokafka.errors import KafkaError
from faust.exceptions import ProducerSendError

from schemas.envelope import Attributes, Record
from schemas.events import CompletionStreamed, Job, StreamedRange
from schemas.ids import derived_event_id, uuid7
from schemas.request_fields import without_unstorable
from streams.app import is_passing

logger = logging.getLogger(__name__)

FIRST_WITHIN_S = 0.002  # at once, but for answers that are whole by then: at 800 a second they would all be records
WINDOW_S = 0.075
BUSY_WINDOW_S = 0.1
BUSY = 50  # executions that are told of at once: each a little less often, then
MOMENT_S = 0.025
EXACT_S = 0.0005
END_WITHIN_S = 2.0  # an answer is not held up by what is told of it
AGAIN_S = 0.5
MAX_PIECE_CHARS = 50_000  # of up to six bytes each
STAGE = "generate_completion"

Offer = Callable[[Record], Awaitable["asyncio.Future[Any]"]]


class DeltaTopic:
    """See `DeltaWriter`."""

    def __init__(
        self, offer: Offer, topic: str, *, new_id: Callable[[], UUID] = uuid7, first_within_s: float = FIRST_WITHIN_S,
        window_s: float = WINDOW_S, busy_window_s: float = BUSY_WINDOW_S, end_within_s: float = END_WITHIN_S,
    ) -> None:  # fmt: skip
        """`offer`: hands a record to the producer; `topic`: full name."""
        self._offer, self._topic, self._new_id = offer, topic, new_id
        self._first_within_s, self._end_within_s = first_within_s, end_within_s
        self._moments = Moments(window_s, max(window_s, busy_window_s))

    def execution(self, job: Job, *, max_chars: int) -> "DeltaExecution":
        """See `DeltaWriter.execution`."""
        return DeltaExecution(
            self._offer, self._topic, job, self._new_id(), self._moments, max_chars=max_chars,
            first_within_s=self._first_within_s, end_within_s=self._end_within_s,
        )  # fmt: skip


class Moments:
    """When a process tells of its executions. `telling`: how many of them have begun to be told, and go on."""

    def __init__(self, window_s: float, busy_window_s: float) -> None:
        """Between two pieces of an execution: `busy_window_s` where more than `BUSY` are told of."""
        self._window_s, self._busy_window_s = window_s, busy_window_s
        self._apart_s = max(0.001, min(MOMENT_S, window_s / 3))
        self.telling = 0

    def next(self, now: float, *, last_at: float, is_second: bool) -> float:
        """The first one that is a window after the last; the second piece comes after a short one in any case."""
        window_s = self._busy_window_s if self.telling > BUSY and not is_second else self._window_s
        return self._first_after(max(now, last_at + window_s) - EXACT_S)

    def met(self, now: float) -> float:
        """The moment that it is; one that was missed by more than a little counts as the one after it."""
        return self._first_after(now - self._apart_s / 5)

    def _first_after(self, at: float) -> float:
        return ceil(at / self._apart_s) * self._apart_s


class DeltaExecution:
    """See `Execution`."""

    def __init__(
        self, offer: Offer, topic: str, job: Job, execution: UUID, moments: Moments, *, max_chars: int,
        first_within_s: float, end_within_s: float,
    ) -> None:  # fmt: skip
        self._offer, self._topic, self._job, self._execution = offer, topic, job, execution
        self._moments, self._left = moments, max_chars
        self._first_within_s, self._end_within_s = first_within_s, end_within_s
        self._key = str(job.job_id).encode()
        self._pending = ""
        self._told: list[str] = []
        self._places: list[tuple[int, int]] = []  # partition and offset of the first and of the newest
        self._timer: asyncio.TimerHandle | None = None
        self._telling: asyncio.Task[None] | None = None
        self._last_at = 0.0
        self._is_counted = self._is_stopped = self._is_given_up = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        if self._telling is not None:
            self._telling.cancel()

    @property
    def has_begun(self) -> bool:
        """See `Execution.has_begun`."""
        return bool(self._pending or self._told)

    async def tell(self, text: str) -> None:
        """See `Execution.tell`."""
        taken = text[: self._left]
        self._left -= len(taken)
        self._pending += taken
        if taken and self._timer is None and self._telling is None:
            self._schedule()

    async def end(self, text: str) -> StreamedRange | None:
        """See `Execution.end`."""
        self._stop()
        if self._telling is None and not self._told:
            return None
        try:
            async with asyncio.timeout(self._end_within_s):
                if self._telling is not None:
                    await self._telling
                told = "".join(self._told)
                if not text.startswith(told):  # the answer is another one than what was told of it
                    return None
                pieces = _pieces(text[len(told) :])
                for piece in pieces[:-1]:
                    await self._send(piece)
                await self._send(pieces[-1], final=True)
        except TimeoutError:
            return None
        if self._is_given_up:
            return None
        (partition, first), (_, last) = self._places[0], self._places[-1]
        return StreamedRange(execution=self._execution, partition=partition, first_offset=first, last_offset=last)

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        if self._told:
            at = self._moments.next(loop.time(), last_at=self._last_at, is_second=len(self._told) == 1)
        else:
            at = loop.time() + self._first_within_s
        self._timer = loop.call_at(at, self._begin)

    def _stop(self) -> None:
        self._left, self._is_stopped = 0, True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_counted:
            self._is_counted = False
            self._moments.telling -= 1

    def _begin(self) -> None:
        self._timer, now = None, asyncio.get_running_loop().time()
        self._last_at = self._moments.met(now) if self._told else now
        if not self._is_counted:
            self._is_counted = True
            self._moments.telling += 1
        self._telling = asyncio.create_task(self._tell_pending())

    async def _tell_pending(self) -> None:
        text, self._pending = _split(self._pending)
        if text:
            await self._send(text)
        self._telling = None
        if text and self._pending and not self._is_stopped:
            self._schedule()

    async def _send(self, text: str, *, final: bool = False) -> None:
        if self._is_given_up:
            return
        record = self._record(text, len(self._told), final=final)
        self._told.append(text)
        while True:  # the same one again is known by its number
            try:
                placed = await (await self._offer(record))
                break
            except (KafkaError, ProducerSendError) as error:
                if not is_passing(error):
                    logger.error("%s takes no piece of an answer (%s)", self._topic, type(error).__name__)  # noqa: TRY400
                    self._stop()
                    self._is_given_up = True
                    return
                await asyncio.sleep(AGAIN_S)
        self._places = [*self._places[:1], (placed.partition, placed.offset)]

    def _record(self, text: str, sequence: int, *, final: bool) -> Record:
        job = self._job
        event = CompletionStreamed(
            job_id=job.job_id, run=job.run, user_id=job.user_id, execution=self._execution, sequence=sequence,
            text=text, final=final,
        )  # fmt: skip
        event_id = derived_event_id(
            job.job_id, cause=str(self._execution), stage=STAGE, run=job.run, index=sequence
        )  # fmt: skip
        attributes = Attributes(event_id, f"/assistant/{STAGE}", "completion-streamed")
        return Record(self._topic, self._key, event.model_dump_json().encode(), attributes.headers())


def _split(text: str) -> tuple[str, str]:
    """What can be told now, and what has to wait: what is too much, or half of a character."""
    piece, rest = text[:MAX_PIECE_CHARS], text[MAX_PIECE_CHARS:]
    if "\ud800" <= piece[-1] <= "\udbff":
        piece, rest = piece[:-1], piece[-1] + rest
    told: str = without_unstorable(piece)
    return told, rest


def _pieces(text: str) -> list[str]:
    """At least one."""
    return [text[at : at + MAX_PIECE_CHARS] for at in range(0, len(text), MAX_PIECE_CHARS)] or [""]
