"""A replica's channels over a topic that is played, and those who listen."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import UUID, uuid4

from ingress.follower import Follower
from ingress.following.channels import Channels
from ingress.following.listener import Listener
from ingress.following.live import Place
from ingress.following.past import PastUnreadableError
from ingress.outcome import Outcome
from schemas.events import CompletionStreamed, StreamedRange
from transport.clients import KafkaAccess

JOB, OTHER = uuid4(), uuid4()
FIRST, SECOND, THIRD = (UUID(int=n) for n in (1, 2, 3))
PARTITION = 3


class FakeTopic:
    """A partition, as live and past readers see it. `reads`: how often the past was read; `held`: it waits."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.takers: list[tuple[bytes, Callable[[Any], None]]] = []
        self.reads = 0
        self.problem: str | None = None
        self.heard_since_ms = 0.0
        self.unreadable = False
        self.held = asyncio.Event()
        self.held.set()
        self.kept_from = 0

    def tell(self, execution: UUID, sequence: int, text: str, *, job_id: UUID = JOB, final: bool = False) -> str:
        event = CompletionStreamed(
            job_id=job_id, user_id="alice", execution=execution, sequence=sequence, text=text, final=final
        )
        offset = len(self.records)
        record = SimpleNamespace(
            key=str(job_id).encode(), value=event.model_dump_json().encode(), partition=PARTITION, offset=offset
        )
        self.records.append(record)
        for key, take in list(self.takers):
            if key == record.key:
                take(record)
        return f"{PARTITION}-{offset}"

    def tell_all(self, execution: UUID, *texts: str) -> StreamedRange:
        first = len(self.records)
        for sequence, text in enumerate(texts):
            self.tell(execution, sequence, text, final=sequence == len(texts) - 1)
        return self.range(execution, first, len(self.records) - 1)

    def range(self, execution: UUID, first: int, last: int) -> StreamedRange:
        return StreamedRange(execution=execution, partition=PARTITION, first_offset=first, last_offset=last)

    # --- as LiveDeltas ---

    @contextmanager
    def listen(self, key: bytes, take: Callable[[Any], None]) -> Iterator[Place]:
        self.takers.append((key, take))
        yield Place(PARTITION, len(self.records))
        self.takers.remove((key, take))

    def begun_at(self, key: bytes) -> int | None:
        found = [record.offset for record in self.records if record.key == key and b'"sequence":0,' in record.value]
        return found[-1] if found else None

    async def heard(self, partition: int, offset: int) -> None:
        while offset >= len(self.records):
            await asyncio.sleep(0.005)

    def start(self) -> None: ...

    async def stop(self) -> None: ...

    # --- as PastDeltas ---

    async def read(
        self, partition: int, *, first: int | None, since_ms: float, end: int, take: Callable[[Any], None]
    ) -> None:
        self.reads += 1
        await self.held.wait()
        if self.unreadable:
            raise PastUnreadableError("away")
        for record in self.records[max(first or 0, self.kept_from) : end]:
            take(record)


class Replica:
    """An ingress's channels over a topic."""

    made: ClassVar["list[Replica]"] = []

    def __init__(self, topic: FakeTopic, **limits: Any) -> None:
        self.topic = topic
        self.follower = Follower(KafkaAccess("nowhere:1"), progressed="p", finished="f", store=None)
        self.stored: dict[UUID, Outcome] = {}
        self.draining = False
        given = {"max_listeners": 100, "max_bytes": 10**6, "max_job_bytes": 10**5} | limits
        given.setdefault("linger_s", 0)
        self.channels = Channels(
            self.follower, topic, topic, find=self._find, is_draining=lambda: self.draining, **given,  # type: ignore[arg-type]  # a fake
        )  # fmt: skip
        self.stack = ExitStack()
        self.made.append(self)

    async def _find(self, job_id: UUID) -> Outcome | None:
        return self.stored.get(job_id)

    def listen(self, *, after: str | None = None, fresh: bool = False) -> "Client":
        since_ms = None if fresh else 1e12
        return Client(self.stack.enter_context(self.channels.listen(JOB, after=after, since_ms=since_ms)))

    def finish(self, outcome: Outcome) -> None:
        self.stored[JOB] = outcome
        for watch in self.follower._watches.get(str(JOB).encode(), ()):
            watch.finish(outcome)


class Client:
    """Reads events as a browser does: `text` since the last restart, `last_id` to go on from."""

    def __init__(self, listener: Listener, text: str = "", last_id: str = "") -> None:
        self.listener, self.text, self.last_id = listener, text, last_id
        self.names: list[str] = []
        self.comments: list[str] = []
        self.body: Any = None
        self._events = listener.events(comment_every_s=0.05)

    async def take(self) -> bool:
        """The next chunk; False at the end of the stream."""
        try:
            chunk = await asyncio.wait_for(anext(self._events), 5)
        except StopAsyncIteration:
            return False
        for block in chunk.decode().split("\n\n"):
            lines = block.split("\n")
            self.comments += [line[1:].strip() for line in lines if line.startswith(":")]
            fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
            self.last_id = fields.get("id", self.last_id)
            if "event" not in fields:
                continue
            self.names.append(fields["event"])
            data = json.loads(fields["data"])
            if fields["event"] == "delta":
                self.text += data["text"]
            elif fields["event"] == "restart":
                self.text = ""
            elif fields["event"] in ("finished", "error"):
                self.body = data
        return True

    async def whole(self) -> "Client":
        while await self.take():
            pass
        return self

    async def until(self, text: str) -> None:
        while self.text != text:
            assert await self.take()


def completed(text: str, stream: StreamedRange | None = None) -> Outcome:
    return Outcome("completed", {"result": {"text": text, "finish_reason": "stop"}}, None, stream=stream)


async def close_all() -> None:
    """Of all replicas that a test has made."""
    for replica in Replica.made:
        replica.stack.close()
        await replica.channels.stop()
    Replica.made.clear()
