"""Tells every 5 s or so that this worker lives, what it reaches, and how busy it is; and keeps an eye on the clock."""

import asyncio
import contextlib
import importlib.metadata
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from time import monotonic, time
from typing import Any

from aiokafka.errors import KafkaError
from faust.exceptions import ConsumerNotStarted, ProducerSendError

from processors.loops import Loop, end
from schemas.envelope import Attributes, Record
from schemas.events import ProviderOffer, StageLoad, WorkerHeartbeat
from streams import metrics
from streams.app import StreamApp

logger = logging.getLogger(__name__)

PERIOD_S = 5.0
BEAT_WITHIN_S = 8.0
# On a machine with many processes to a processor looks took longer than 4 s for minutes: to give up on each of them
# then is to take a worker that works for one that hangs.
LOOK_TIMEOUT_S = 30.0
MAX_CLOCK_SKEW_S = 30.0
KEPT = 12  # heartbeats, that is, a minute of finished counts


class Heartbeat:
    """Publishes to `worker-heartbeat`.

    Attributes:
        lags: By stage, records that are not finished, as last seen.
        deliverable: By stage, those of them that could be delivered and were not.
        asked_at: When the brokers were asked for them: what was delivered since is not among them, or no longer.
        looked_at: When both were known.
        clock_skew_s: How far this machine is ahead of the brokers.
        answered_at: When they took the last heartbeat.
    """

    def __init__(
        self,
        apps: Sequence[StreamApp],
        topic: str,
        *,
        worker: str,
        http: str | None,
        offers: Callable[[], Sequence[ProviderOffer]],
        process: str = "",
        started_at: datetime | None = None,
    ) -> None:
        """`offers`: what can be reached, asked at each beat; `process`: tells it from another of the same name."""
        self._process, self._started_at = process, started_at
        self._apps, self._topic, self._worker, self._http, self._offers = apps, topic, worker, http, offers
        self._finished: deque[dict[str, int]] = deque(maxlen=KEPT)
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._beats, self._looks = Loop("the heartbeat"), Loop("looking at lags")
        self._looked = asyncio.Event()
        self.says_good_bye = True  # not in another's name
        self.lags: dict[str, int] = {}
        self.deliverable: dict[str, int] = {}
        self.asked_at = self.looked_at = monotonic()
        self._skew_s = 0.0  # at the last answer, which came at `_clocks`
        self._clocks: tuple[float, float] | None = None
        self.answered_at: float | None = None  # None: nobody has heard of this worker yet
        # An installed version where there is one; a checkout may run without being installed.
        try:
            self._version = importlib.metadata.version("assistant-stream")
        except importlib.metadata.PackageNotFoundError:
            self._version = "unknown"

    def start(self) -> None:
        """Begin; the first beat is at once."""
        self._task = asyncio.create_task(self._run(), name="heartbeat")

    async def stop(self) -> None:
        """Say good-bye, so that nobody waits for this worker."""
        if self._task is not None:
            await end(self._task)
            if self._looking is not None:
                await end(self._looking)
            if self.says_good_bye:
                with contextlib.suppress(TimeoutError, KafkaError, ProducerSendError):
                    await asyncio.wait_for(self._beat(stopped=True), 2)

    async def _run(self) -> None:
        # First that it lives: until then nobody sends it any work.
        await self._try(self._beat(), PERIOD_S, self._beats)
        self._looking = asyncio.create_task(self._look_again_and_again(), name="looking at lags")
        while True:  # after each look; and where one takes long it holds up no beat
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_WITHIN_S):
                    await self._looked.wait()
            self._looked.clear()
            await self._try(self._beat(), PERIOD_S, self._beats)

    async def _look_again_and_again(self) -> None:
        while True:
            await self._try(self._look(), LOOK_TIMEOUT_S, self._looks)
            self._looked.set()
            await asyncio.sleep(PERIOD_S)

    async def _try(self, step: Coroutine[Any, Any, None], timeout_s: float, loop: Loop) -> None:
        try:
            async with asyncio.timeout(timeout_s):  # wait_for loses a cancellation that meets the answer (Python 3.11)
                await step
        except (TimeoutError, KafkaError, ProducerSendError, ConsumerNotStarted, KeyError) as error:
            logger.debug("no heartbeat this time: %s", type(error).__name__)
        except Exception as bug:  # a worker that is not heard of gets no jobs: the next beat comes when it would have
            loop.met(bug)
        else:
            loop.went_well()

    async def _beat(self, *, stopped: bool = False) -> None:
        now = datetime.now(UTC)
        lanes = [lane for app in self._apps for lane in app.lanes.values()]
        self._finished.append({lane.name: lane.finished for lane in lanes})
        stages = tuple(
            StageLoad(
                stage=lane.name,
                in_flight=lane.pending,
                lag=self.lags.get(lane.name, 0),
                finished_last_minute=lane.finished - self._finished[0][lane.name],
            )
            for lane in lanes
        )
        beat = WorkerHeartbeat(
            worker=self._worker, at=now, roles=tuple(app.role for app in self._apps),
            partitions=self._partitions(), stages=stages, providers=tuple(self._offers()), version=self._version,
            http=self._http, stopped=stopped, process=self._process, started_at=self._started_at,
        )  # fmt: skip
        attributes = Attributes(f"{self._worker}/{now.timestamp()}", f"/assistant/{self._worker}", "worker-heartbeat")
        record = Record(self._topic, self._worker.encode(), beat.model_dump_json().encode(), attributes.headers())
        answer = await (await self._apps[0].hand_over(record))
        self.answered_at = monotonic()
        if answer.timestamp_type == 1:  # the broker's own time of appending
            self._clocks = time(), monotonic()
            self._skew_s = self._clocks[0] - answer.timestamp / 1000

    @property
    def clock_skew_s(self) -> float:
        """How far this machine's clock is ahead of the brokers', now: also where it has jumped since the last beat."""
        if self._clocks is None:
            return 0.0
        wall, steady = self._clocks
        return self._skew_s + (time() - wall) - (monotonic() - steady)

    def _partitions(self) -> dict[str, tuple[int, ...]]:
        owned: dict[str, tuple[int, ...]] = {}
        for app in self._apps:
            with contextlib.suppress(ConsumerNotStarted):
                for tp in sorted(app.consumer.assignment()):
                    owned[tp.topic] = (*owned.get(tp.topic, ()), tp.partition)
        return owned

    async def _look(self) -> None:
        began_at = monotonic()
        lags: dict[str, int] = {}
        deliverable: dict[str, int] = {}
        # All at once: each one's question waits behind its fetch, for up to half a second.
        found = await asyncio.gather(*(app.consumer.backlog() for app in self._apps))
        for app, backlog in zip(self._apps, found, strict=True):
            for tp, (unfinished, waiting) in backlog.items():
                name = app.lanes[tp.topic].name
                lags[name] = lags.get(name, 0) + unfinished
                deliverable[name] = deliverable.get(name, 0) + waiting
        for name, lag in lags.items():
            metrics.LAG.labels(name).set(lag)
        self.lags, self.deliverable = lags, deliverable
        self.asked_at, self.looked_at = began_at, monotonic()
