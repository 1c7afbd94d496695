"""One job's answer for all who listen to it: read once, told to each from where they are.

What is told is decided by the log alone, so every replica tells the same, and a listener may go on at another one:
piece 0 of an execution makes void what was told before it; a piece of any other execution, or one that has come before,
is passed over. The outcome says which execution has won, and where it lies; whoever has heard another one, or not all
of it, gets it from there.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from aiokafka.structs import ConsumerRecord
from pydantic import ValidationError

from ingress.follower import Follower, Watch
from ingress.following.live import LiveDeltas, Place
from ingress.following.past import PastDeltas, PastUnreadableError
from ingress.following.told import WHOLE, WHOLE_ID, Budget, Told
from ingress.outcome import Outcome
from processors.loops import end
from schemas.events import CompletionStreamed, JobProgressed, StreamedRange

if TYPE_CHECKING:
    from ingress.following.listener import Listener

logger = logging.getLogger(__name__)

CLOCK_SKEW_MS = 30_000
LIVE_BEHIND_S = 2.0  # the outcome may be heard of before the last piece
MAX_PROGRESS = 20

Find = Callable[[UUID], Awaitable[Outcome | None]]


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
        self.outcome: Outcome | None = None  # what it tells of
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
        watching = self._follower.watch(self.job_id, may_have_ended=self._since_ms is not None)
        watch = self._hearing.enter_context(watching)
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
            except Exception:  # its listeners would wait for ever
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
            await end(self._task)
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
            if text := text_of(outcome.result):
                self._add(0, text, WHOLE_ID)
        self._release_ahead()
        self._is_void = outcome.status != "completed"
        self.outcome = outcome
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


def text_of(result: dict[str, Any] | None) -> str:
    """What a body says: an answer's text, or that of a refusal."""
    if result is None:
        return ""
    inner = result.get("result")
    text = inner.get("text") if isinstance(inner, dict) else result.get("answer")
    return text if isinstance(text, str) else ""


def _event(name: str, body: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(body))
