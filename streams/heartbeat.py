"""Tells every 5 s that this worker lives, what it can reach, and how busy it is; and keeps an eye on the clock."""

import asyncio
import contextlib
import importlib.metadata
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from aiokafka.errors import KafkaError
from faust.exceptions import ConsumerNotStarted, ProducerSendError

from schemas.envelope import Attributes, Record
from schemas.events import ProviderOffer, StageLoad, WorkerHeartbeat
from streams import metrics
from streams.app import StreamApp

logger = logging.getLogger(__name__)

PERIOD_S = 5.0
LAG_TIMEOUT_S = 4.0
MAX_CLOCK_SKEW_S = 30.0
KEPT = 12  # heartbeats, that is, a minute of finished counts


class Heartbeat:
    """Publishes to `worker-heartbeat`. `lags`: stage -> records that wait, as last seen."""

    def __init__(
        self, apps: Sequence[StreamApp], topic: str, *, worker: str, http: str | None, offers: Sequence[ProviderOffer]
    ) -> None:
        self._apps, self._topic, self._worker, self._http, self._offers = apps, topic, worker, http, tuple(offers)
        self._finished: deque[dict[str, int]] = deque(maxlen=KEPT)
        self._task: asyncio.Task[None] | None = None
        self.lags: dict[str, int] = {}
        self.clock_skew_s = 0.0
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
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            with contextlib.suppress(TimeoutError, KafkaError, ProducerSendError):
                await asyncio.wait_for(self._beat(stopped=True), 2)

    async def _run(self) -> None:
        # First that it lives: a look at the brokers may take seconds, and until then nobody sends it any work.
        await self._try(self._beat(), PERIOD_S)
        while True:
            await self._try(self._look(), LAG_TIMEOUT_S)
            await self._try(self._beat(), PERIOD_S)
            await asyncio.sleep(PERIOD_S)

    async def _try(self, step: Coroutine[Any, Any, None], timeout_s: float) -> None:
        try:
            await asyncio.wait_for(step, timeout_s)
        except (TimeoutError, KafkaError, ProducerSendError, ConsumerNotStarted, KeyError) as error:
            logger.debug("no heartbeat this time: %s", type(error).__name__)

    async def _look(self) -> None:
        self.lags = await self._lags()

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
            partitions=self._partitions(), stages=stages, providers=self._offers, version=self._version,
            http=self._http, stopped=stopped,
        )  # fmt: skip
        attributes = Attributes(f"{self._worker}/{now.timestamp()}", f"/assistant/{self._worker}", "worker-heartbeat")
        record = Record(self._topic, self._worker.encode(), beat.model_dump_json().encode(), attributes.headers())
        answer = await (await self._apps[0].hand_over(record))
        self.answered_at = monotonic()
        if answer.timestamp_type == 1:  # the broker's own time of appending
            self.clock_skew_s = datetime.now(UTC).timestamp() - answer.timestamp / 1000

    def _partitions(self) -> dict[str, tuple[int, ...]]:
        owned: dict[str, tuple[int, ...]] = {}
        for app in self._apps:
            with contextlib.suppress(ConsumerNotStarted):
                for tp in sorted(app.consumer.assignment()):
                    owned[tp.topic] = (*owned.get(tp.topic, ()), tp.partition)
        return owned

    async def _lags(self) -> dict[str, int]:
        """Asked of the brokers themselves: what the consumer knows stands still when its fetching does."""
        lags: dict[str, int] = {}
        for app in self._apps:
            consumer = app.consumer
            owned = consumer.assignment()
            if not owned:
                continue
            ends = await consumer.highwaters(*owned)
            for tp, end in ends.items():
                behind = max(0, (end or 0) - consumer.finished_up_to(tp))
                name = app.lanes[tp.topic].name
                lags[name] = lags.get(name, 0) + behind
                metrics.LAG.labels(name).set(lags[name])
        return lags
