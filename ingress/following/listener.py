"""One who listens to a job: where they are in it, and what comes next for them."""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

import orjson
from prometheus_client import Counter

from ingress.access.credentials import REVOKED, WHY_REVOKED
from ingress.following.channel import Channel
from ingress.following.told import WHOLE, WHOLE_ID, Told
from ingress.outcome import Outcome

DROPPED = Counter("assistant_stream_dropped_total", "Listeners that were sent away and may come again", ["why"])
COMMENT_EVERY_S = 15.0
MAX_CHUNK_BYTES = 65_536
RESTART = b"id:\nevent: restart\ndata: {}\n\n"  # an empty id: what they had is not to be gone on from
_ID = re.compile(r"^([0-9]{1,5})-([0-9]{1,19})$")


@dataclass(frozen=True, slots=True)
class News:
    """What is new for one who listens; nothing of all this where nothing has come for long.

    Attributes:
        progress: Events on the way, as they are told.
        is_void: The text so far is, before these pieces.
        pieces: Of the answer, as they are told.
        outcome: It has ended.
        end: The event that says that it has ended, or that they may hear nothing more.
        sent_away: Why they have to come again.
        is_revoked: They hear nothing more, for what they asked with is no longer good.
    """

    progress: bytes = b""
    is_void: bool = False
    pieces: Sequence[bytes] = ()
    outcome: Outcome | None = None
    end: bytes = b""
    sent_away: str | None = None
    is_revoked: bool = False

    def as_events(self) -> bytes:
        """As server-sent events of our own; a comment where there is nothing."""
        if self.sent_away is not None:
            return f": {self.sent_away}: go on with Last-Event-ID\nretry: 1000\n\n".encode()
        return b"".join((self.progress, RESTART if self.is_void else b"", *self.pieces, self.end)) or b":\n\n"


class Listener:
    """One who listens: where they are, and what comes next for them."""

    def __init__(self, channel: Channel, after: str | None) -> None:
        """`after`: the id of the last event that they have, from an earlier connection."""
        self.wake = asyncio.Event()
        self.gone = False
        self.finished = False
        self.is_revoked = False
        self._channel = channel
        self._execution: UUID | None = None
        self._next = 0
        self._after = after
        # Where it stands now is told to who comes while it goes on.
        self._progressed = channel.progressed if channel.end is not None else max(0, channel.progressed - 1)

    @property
    def outcome(self) -> Outcome | None:
        """Of the job, as soon as it is known; its text may not all have been told yet."""
        return self._channel.outcome

    async def events(self, *, comment_every_s: float = COMMENT_EVERY_S) -> AsyncGenerator[bytes, None]:
        """Server-sent events, some at a time; a comment where nothing comes for long. Ends at the end, or when gone."""
        async with aclosing(self.news(comment_every_s=comment_every_s)) as news:
            async for one in news:
                yield one.as_events()

    async def news(self, *, comment_every_s: float = COMMENT_EVERY_S) -> AsyncGenerator[News, None]:
        """The same for whoever tells it in another way."""
        channel = self._channel
        while not self.gone:
            if self.is_revoked:
                yield News(is_revoked=True, end=self._revoked())
                return
            self.wake.clear()
            progress = self._progress()
            is_void, pieces = self._pieces()
            if progress or is_void or any(pieces):
                yield News(progress, is_void, pieces)
            elif self._is_overtaken():
                yield self._sent_away("slow", "you are too far behind")
                return
            elif channel.end is not None:
                self.finished = True
                yield News(outcome=channel.outcome, end=channel.end)
                return
            elif channel.closed is not None:
                yield self._sent_away("closed", channel.closed)
                return
            else:
                try:
                    async with asyncio.timeout(comment_every_s):
                        await self.wake.wait()
                except TimeoutError:
                    yield News()

    def revoke(self) -> None:
        """They may hear nothing more."""
        self.is_revoked = True
        self.wake.set()

    def leave(self) -> None:
        """They have closed the connection."""
        self.gone = True
        self.wake.set()

    def _revoked(self) -> bytes:
        told = {"job_id": str(self._channel.job_id), "error": {"code": REVOKED, "message": WHY_REVOKED}}
        return b"event: error\ndata: %b\n\n" % orjson.dumps(told)

    def _progress(self) -> bytes:
        channel = self._channel
        new = min(channel.progressed - self._progressed, len(channel.progress))
        self._progressed = channel.progressed
        return b"".join(list(channel.progress)[len(channel.progress) - new :]) if new > 0 else b""

    def _pieces(self) -> tuple[bool, Sequence[bytes]]:
        """Whether what they have is void, and the next ones."""
        told, is_void = self._channel.current, False
        if told is None:
            return False, ()
        if told.execution != self._execution:
            found = self._resumed(told)
            if found is None:
                return False, ()
            is_void = self._execution is not None or (self._after is not None and found == 0)
            self._execution, self._next, self._after = told.execution, found, None
        at = end = self._next - told.base
        if at < 0:
            return is_void, ()
        size = 0
        while end < len(told.pieces) and (end == at or size + len(told.pieces[end]) <= MAX_CHUNK_BYTES):
            size += len(told.pieces[end])
            end += 1
        self._next = told.base + end
        return is_void, told.pieces[at:end]

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

    def _sent_away(self, label: str, why: str) -> News:
        DROPPED.labels(label).inc()
        return News(sent_away=why)
