"""One job's answer for all who listen to it: read once, told to each from where they are.

What is told is decided by the log alone, so every replica tells the same, and a listener may go on at another one:
piece 0 of an execution makes void what was told before it; a piece of any other execution, or one that has come before,
is passed over. The outcome says which execution has won, and where it lies; whoever has heard another one, or not all
of it, gets it from there.
"""

import asyncio
import logging
import re
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from aiokafka.structs import ConsumerRecord
from prometheus_client import Counter, Gauge
from pydantic import ValidationError

from ingress.follower import Follower, Outcome, Watch
from ingress.live import LiveDeltas, Place
from ingress.past import PastDeltas, PastUnreadableError
from schemas.events import CompletionStreamed, JobProgressed, StreamedRange

logger = logging.getLogger(__name__)

LISTENERS = Gauge("assistant_stream_listeners", "Who listens to an answer now")
DROPPED = Counter("assistant_stream_dropped_total", "Listeners that were sent away and may come again", ["why"])
CLOCK_SKEW_MS = 30_000
LIVE_BEHIND_S = 2.0  # the outcome may be heard of before the last piece
COMMENT_EVERY_S = 15.0
MAX_CHUNK_BYTES = 65_536
MAX_PROGRESS = 20
WHOLE = UUID(int=0)  # of an answer that was not told piece by piece
WHOLE_ID = "end"
RESTART = b"id:\nevent: restart\ndata: {}\n\n"  # an empty id: what they had is not to be gone on from
_ID = re.compile(r"^([0-9]{1,5})-([0-9]{1,19})$")


Find = Callable[[UUID], Awaitable[Outcome | None]]


class TooManyListenersError(Exception):
    """This replica has as many as it can hold."""


@dataclass(slots=True)
class Told:
    """What is known of one execution: its pieces from number `base` on, those before it are held no more."""

    execution: UUID
    partition: int = -1
    base: int = 0
    has_gap: bool = False
    offsets: list[int] = field(default_factory=list)  # parallel to `pieces`, which are as they are told
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0

    @property
    def next(self) -> int:
        """The number of the piece that comes next."""
        return self.base + len(self.pieces)

    @property
    def last(self) -> int:
        """Offset of the newest piece; -1 before the first."""
        return self.offsets[-1] if self.offsets else -1

    def add(self, offset: int, text: str, event_id: str) -> int:
        """Keep a piece; how many bytes it is."""
        data = orjson.dumps({"text": text})
        piece = b"id: %b\nevent: delta\ndata: %b\n\n" % (event_id.encode(), data) if text else b""
        self.offsets.append(offset)
        self.pieces.append(piece)
        self.size += len(piece)
        return len(piece)

    def trim(self, max_bytes: int) -> int:
        """Let the oldest go, but for the newest one; how many bytes that were."""
        before, count = self.size, 0
        while self.size > max_bytes and count < len(self.pieces) - 1:
            self.size -= len(self.pieces[count])
            count += 1
        self.base += count
        del self.offsets[:count], self.pieces[:count]
        return before - self.size

    def after(self, offset: int) -> int | None:
        """The number of the piece after the one at this offset, if it is there."""
        at = bisect_right(self.offsets, offset)
        return self.base + at if at and self.offsets[at - 1] == offset else None

    def holds(self, where: StreamedRange) -> bool:
        """All of it was heard."""
        return self.execution == where.execution and not self.has_gap and self.last >= where.last_offset


@dataclass(slots=True)
class Budget:
    """How many bytes all channels hold, and may."""

    max_bytes: int
    max_job_bytes: int
    held: int = 0


class Channel:
    """A job that somebody listens to. Ends with its outcome, or is closed, after which its listeners come again."""

    def __init__(
        self, job_id: UUID, *, follower: Follower, live: LiveDeltas, past: PastDeltas, budget: Budget,
        find: Find, since_ms: float | None,
    ) -> None:  # fmt: skip
        """Nothing is read before `open`.

        Args:
            job_id: The job.
            follower: Tells of its outcome.
            live: Tells of its pieces.
            past: Reads those that were told already.
            budget: Shared by all channels.
            find: Awaited for the job's outcome, where it may have ended already.
            since_ms: When the job can have begun at the earliest; None: it has not been published yet.
        """
        self.job_id, self._key = job_id, str(job_id).encode()
        self._follower, self._live, self._past, self._budget = follower, live, past, budget
        self._find, self._since_ms = find, since_ms
        self.current: Told | None = None
        self.progress: deque[bytes] = deque(maxlen=MAX_PROGRESS)
        self.progressed = 0
        self.end: bytes | None = None  # the event after which there is nothing
        self.closed: str | None = None  # why it ended without one
        self._is_void = False  # it ended without an answer, and may be tried again
        self.listeners: set[Listener] = set()
        self._ahead: list[ConsumerRecord] | None = None  # heard while the past is being read
        self._ahead_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._hearing = ExitStack()

    @property
    def takes_listeners(self) -> bool:
        """It has all of the answer from its first piece on."""
        return self.closed is None and not self._is_void and (self.current is None or self.current.base == 0)

    def open(self) -> None:
        """Begin to hear of the job; from here on nothing is missed.

        Raises:
            NotFollowedError: Kafka cannot be reached.
        """
        watch = self._hearing.enter_context(self._follower.watch(self.job_id))
        with ExitStack() as undo:
            undo.callback(self._hearing.close)
            place = self._hearing.enter_context(self._live.listen(self._key, self._hear))
            undo.pop_all()
        watch.on_progress = self._take_progress
        if self._since_ms is not None:
            self._ahead = []

        async def run() -> None:
            try:
                await self._run(place, watch)
            except PastUnreadableError as error:
                self.close(str(error))
            except Exception:
                logger.exception("job %s cannot be told", self.job_id)
                self.close("a bug, which the log has")
            finally:
                self._hearing.close()

        self._task = asyncio.create_task(run(), name="channel")

    def close(self, why: str) -> None:
        """Send all listeners away; they may come again."""
        if self.end is None and self.closed is None:
            self.closed = why
            self._wake()

    async def drop(self) -> None:
        """Nobody listens any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._hearing.close()  # the task may not have begun
        self._replace(None)
        self._release_ahead()

    # --- what was told, and is being told ---

    async def _run(self, place: Place, watch: Watch) -> None:
        outcome = await self._find(self.job_id) if self._since_ms is not None else None
        if outcome is None:
            if self._since_ms is not None:
                await self._catch_up(place, self._since_ms)
            outcome = await watch.finished
        await self._conclude(outcome)

    async def _catch_up(self, place: Place, since_ms: float) -> None:
        """Read what was told before this channel was opened, then what was heard of meanwhile."""
        first = self._live.begun_at(self._key)
        if first is not None or since_ms - CLOCK_SKEW_MS < self._live.heard_since_ms:
            await self._past.read(
                place.partition, first=first, since_ms=since_ms - CLOCK_SKEW_MS, end=place.next, take=self._take
            )
        ahead = self._ahead or []
        self._release_ahead()
        for record in ahead:
            self._take(record)
        self._wake()

    async def _conclude(self, outcome: Outcome) -> None:
        where, told = outcome.stream, self.current
        if outcome.status == "completed" and where is not None:
            if told is not None and told.execution == where.execution and not told.has_gap:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LIVE_BEHIND_S):
                        await self._live.heard(where.partition, where.last_offset)
            if self.current is None or not self.current.holds(where):
                await self._read_whole(where)
        if outcome.status == "completed" and (where is None or self.current is None or not self.current.holds(where)):
            self._replace(Told(WHOLE))
            if text := _text(outcome.result):
                self._add(0, text, WHOLE_ID)
        self._release_ahead()
        self._is_void = outcome.status != "completed"
        self.end = _event("finished" if outcome.status == "completed" else "error", self._view(outcome))
        self._wake()

    async def _read_whole(self, where: StreamedRange) -> None:
        """The execution that has won, from the topic, as far as it is kept there."""
        found = Told(where.execution, where.partition)

        def take(record: ConsumerRecord) -> None:
            event = self._parsed(record)
            if event is not None and event.execution == where.execution and event.sequence == found.next:
                found.add(record.offset, event.text, f"{record.partition}-{record.offset}")

        try:
            await self._past.read(
                where.partition, first=where.first_offset, since_ms=0, end=where.last_offset + 1, take=take
            )
        except PastUnreadableError:
            return  # the outcome has its text, too
        if found.holds(where):
            self._replace(found)

    def _hear(self, record: ConsumerRecord) -> None:
        """A record, live."""
        if self.end is not None or self.closed is not None:
            return
        if self._ahead is None:
            self._take(record)
            self._wake()
            return
        self._ahead.append(record)
        self._ahead_bytes += len(record.value)
        self._budget.held += len(record.value)
        if self._ahead_bytes > self._budget.max_job_bytes or self._budget.held > self._budget.max_bytes:
            self.close("too much was told while the past was being read")
            self._release_ahead()

    def _take(self, record: ConsumerRecord) -> None:
        if (event := self._parsed(record)) is None:
            return
        told = self.current
        if event.sequence == 0 and (told is None or told.execution != event.execution):
            told = self._replace(Told(event.execution, record.partition))
        elif told is None or told.execution != event.execution or event.sequence < told.next:
            return
        elif event.sequence > told.next:
            told.has_gap = True  # the outcome will say where all of it is
        if told is not None and not told.has_gap:
            self._add(record.offset, event.text, f"{record.partition}-{record.offset}")

    def _parsed(self, record: ConsumerRecord) -> CompletionStreamed | None:
        if record.key != self._key or record.value is None:
            return None
        try:
            return CompletionStreamed.model_validate_json(record.value)
        except ValidationError:
            return None

    def _take_progress(self, event: JobProgressed) -> None:
        told = event.model_dump(mode="json", exclude_none=True, exclude={"user_id", "run"})
        self.progress.append(_event("progress", told))
        self.progressed += 1
        self._wake()

    # --- what is held ---

    def _add(self, offset: int, text: str, event_id: str) -> None:
        told, budget = self.current, self._budget
        if told is None:
            return
        budget.held += told.add(offset, text, event_id)
        allowed = budget.max_job_bytes
        if budget.held > budget.max_bytes:
            allowed = min(allowed, max(0, told.size - (budget.held - budget.max_bytes)))
        if told.size > allowed and told.execution != WHOLE:
            budget.held -= told.trim(allowed)

    def _replace(self, told: Told | None) -> Told | None:
        self._budget.held += (told.size if told else 0) - (self.current.size if self.current else 0)
        self.current = told
        return told

    def _release_ahead(self) -> None:
        self._budget.held -= self._ahead_bytes
        self._ahead, self._ahead_bytes = None, 0

    def _wake(self) -> None:
        for listener in self.listeners:
            listener.wake.set()

    def _view(self, outcome: Outcome) -> dict[str, Any]:
        """As polled."""
        view = {"job_id": str(self.job_id), "status": outcome.status, "result": outcome.result, "error": outcome.error}
        return {name: value for name, value in view.items() if value is not None}


class Listener:
    """One who listens: where they are, and what comes next for them."""

    def __init__(self, channel: Channel, after: str | None) -> None:
        """`after`: the id of the last event that they have, from an earlier connection."""
        self.wake = asyncio.Event()
        self.gone = False
        self.finished = False
        self._channel = channel
        self._execution: UUID | None = None
        self._next = 0
        self._after = after
        self._progressed = max(0, channel.progressed - 1)

    async def events(self, *, comment_every_s: float = COMMENT_EVERY_S) -> AsyncGenerator[bytes, None]:
        """Server-sent events, some at a time; a comment where nothing comes for long. Ends at the end, or when gone."""
        channel = self._channel
        while not self.gone:
            self.wake.clear()
            if chunk := self._progress() + self._pieces():
                yield chunk
            elif self._is_overtaken():
                yield self._sent_away("slow", "you are too far behind")
                return
            elif channel.end is not None:
                self.finished = True
                yield channel.end
                return
            elif channel.closed is not None:
                yield self._sent_away("closed", channel.closed)
                return
            else:
                try:
                    async with asyncio.timeout(comment_every_s):
                        await self.wake.wait()
                except TimeoutError:
                    yield b":\n\n"

    def leave(self) -> None:
        """They have closed the connection."""
        self.gone = True
        self.wake.set()

    def _progress(self) -> bytes:
        channel = self._channel
        new = min(channel.progressed - self._progressed, len(channel.progress))
        self._progressed = channel.progressed
        return b"".join(list(channel.progress)[len(channel.progress) - new :]) if new > 0 else b""

    def _pieces(self) -> bytes:
        told, out = self._channel.current, b""
        if told is None:
            return out
        if told.execution != self._execution:
            found = self._resumed(told)
            if found is None:
                return out
            is_void = self._execution is not None or (self._after is not None and found == 0)
            out = RESTART if is_void else out
            self._execution, self._next, self._after = told.execution, found, None
        at = end = self._next - told.base
        if at < 0:
            return out
        size = 0
        while end < len(told.pieces) and (end == at or size + len(told.pieces[end]) <= MAX_CHUNK_BYTES):
            size += len(told.pieces[end])
            end += 1
        self._next = told.base + end
        return out + b"".join(told.pieces[at:end])

    def _resumed(self, told: Told) -> int | None:
        """The number of the piece with which they go on: 0 where what they have is void; None: not known yet."""
        is_over = self._channel.end is not None or self._channel.closed is not None
        if self._after is None:
            return 0
        if self._after == WHOLE_ID:
            return 1 if told.execution == WHOLE else 0 if is_over else None
        found = _ID.match(self._after)
        if found is None or int(found[1]) != told.partition:
            return 0
        offset = int(found[2])
        number = told.after(offset)
        if number is not None:
            return number
        return None if offset > told.last and not is_over else 0

    def _is_overtaken(self) -> bool:
        told = self._channel.current
        return told is not None and told.execution == self._execution and self._next < told.base

    def _sent_away(self, label: str, why: str) -> bytes:
        DROPPED.labels(label).inc()
        return f": {why}: go on with Last-Event-ID\nretry: 1000\n\n".encode()


class Channels:
    """All jobs that somebody listens to here."""

    def __init__(
        self, follower: Follower, live: LiveDeltas, past: PastDeltas, *, find: Find,
        max_listeners: int, max_bytes: int, max_job_bytes: int, is_draining: Callable[[], bool],
    ) -> None:  # fmt: skip
        """`find`: awaited for the outcome of a job that may have ended; `max_*`: what this process may hold."""
        self._follower, self._live, self._past, self._find = follower, live, past, find
        self._max_listeners, self._is_draining = max_listeners, is_draining
        self.budget = Budget(max_bytes, max_job_bytes)
        self._channels: dict[UUID, Channel] = {}
        self._count = 0
        self._dropping: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to hear; returns at once."""
        self._live.start()
        self._watching = asyncio.create_task(self._close_when_draining(), name="channels")

    async def stop(self) -> None:
        """May be called twice."""
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.gather(*self._dropping, *(channel.drop() for channel in self._channels.values()))
        await self._live.stop()
        await self._past.stop()

    @contextmanager
    def listen(self, job_id: UUID, *, after: str | None, since_ms: float | None) -> Iterator[Listener]:
        """Listen to a job, from where they were; see `Channel`.

        Raises:
            TooManyListenersError, NotFollowedError: Not here, not now.
        """
        if self._count >= self._max_listeners or self.budget.held >= self.budget.max_bytes:
            raise TooManyListenersError
        channel = self._channels.get(job_id)
        if channel is None or not channel.takes_listeners:
            channel = Channel(
                job_id, follower=self._follower, live=self._live, past=self._past, budget=self.budget,
                find=self._find, since_ms=since_ms,
            )  # fmt: skip
            channel.open()
            self._channels[job_id] = channel
        listener = Listener(channel, after)
        channel.listeners.add(listener)
        self._count += 1
        LISTENERS.inc()
        try:
            yield listener
        finally:
            self._count -= 1
            LISTENERS.dec()
            channel.listeners.discard(listener)
            if not channel.listeners:
                if self._channels.get(job_id) is channel:
                    del self._channels[job_id]
                dropping = asyncio.create_task(channel.drop())
                self._dropping.add(dropping)
                dropping.add_done_callback(self._dropping.discard)

    def listeners(self, job_id: UUID) -> int:
        """How many listen to it here."""
        channel = self._channels.get(job_id)
        return len(channel.listeners) if channel else 0

    @property
    def problem(self) -> str | None:
        """Why nobody can listen now."""
        return self._live.problem

    async def _close_when_draining(self) -> None:
        while not self._is_draining():
            await asyncio.sleep(0.5)
        for channel in list(self._channels.values()):
            channel.close("this replica is stopping")


def _text(result: dict[str, Any] | None) -> str:
    """What a body says: an answer's text, or that of a refusal."""
    if result is None:
        return ""
    inner = result.get("result")
    text = inner.get("text") if isinstance(inner, dict) else result.get("answer")
    return text if isinstance(text, str) else ""


def _event(name: str, body: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(body))
