"""A worker process: keeps what `composition` has made running until it is told to stop."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from time import monotonic
from uuid import uuid4

from faust.contrib.asgi import faust_app_running

from processors.loops import end, repeat
from schemas.events import WorkerHeartbeat
from schemas.topics import Catalog
from settings import Settings
from streams import metrics
from streams.app import StreamApp
from streams.composition import Composition
from streams.errors import StartError
from streams.health import HealthServer
from streams.heartbeat import MAX_CLOCK_SKEW_S, Heartbeat
from streams.tables import RETRY_S
from streams.watchdog import Watchdog
from transport.admin import Difference, RefusedError, TopicsError, lacking, unusable
from transport.clients import KafkaAccess
from transport.permissions import told
from transport.ports import why_not
from transport.start_check import wrongs
from vault.live import LiveSettings, told_of

logger = logging.getLogger(__name__)

HEARTBEAT_LATE_S = 20.0
TOPICS_EVERY_S = 5.0
AFTER_DRAIN_S = 8.0  # for the last commit and for connections to close: a supervisor kills what takes 40 s in all


class NameTakenError(Exception):
    """Another process has this one's WORKER_ID."""


class Worker:
    """One process with some of the roles."""

    def __init__(self, settings: Settings, roles: Sequence[str]) -> None:
        """Raises StartError where a setting is missing."""
        self._settings, self._roles = settings, roles
        if settings.kafka_bootstrap_servers is None:
            raise StartError("KAFKA_BOOTSTRAP_SERVERS is not set: name the cluster, or run `assistant up`")
        self._access = KafkaAccess(settings.kafka_bootstrap_servers, settings.kafka_security)
        self._has_acls = settings.kafka_security_protocol != "PLAINTEXT"
        self._catalog = Catalog.load(prefix=settings.kafka_topic_prefix)
        self._worker_id = settings.worker_id or f"{'-'.join(roles)}-{socket.gethostname()}-{uuid4().hex[:6]}"
        self._process, self._started_at = uuid4().hex, datetime.now(UTC)
        self._twin: WorkerHeartbeat | None = None
        self._problems: dict[str, str] = {"start": "it is starting"}
        self._heartbeat: Heartbeat | None = None
        self._live = LiveSettings(settings)
        self._made = Composition(
            settings, roles, self._access, self._catalog, clock_is_right=self._clock, on_beat=self._look_for_twin,
            live=self._live,
        )  # fmt: skip
        self._apps, self._tables = self._made.apps, self._made.tables
        self._stalled_since: float | None = None
        self._deaf_since: float | None = None
        self._has_lost_a_topic = False
        self._told_refusal: str | None = None

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, then drain.

        Raises:
            StartError: A topic or a setting is missing, or the port is taken.
            NameTakenError: Another process was started under its name.
        """
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        health = HealthServer(
            problems=self._current_problems, before_scrape=self._set_gauges, warnings=lambda: told_of(self._live)
        )
        async with AsyncExitStack() as stack:
            stack.push_async_callback(health.stop)
            port = self._settings.worker_http_port
            try:
                await health.start(self._settings.worker_http_host, port)
            except OSError as error:
                raise StartError(why_not(port, error, setting="WORKER_HTTP_PORT")) from None
            watchdog = Watchdog(stall_timeout_s=self._settings.stall_timeout, stalled_for_s=self._stalled_for_s)
            stack.callback(watchdog.stop)  # after all that may not come to its end
            if not await _unless_stopped(stop, self._check_topics()):
                return
            composing = asyncio.ensure_future(self._made.compose(stack))
            if not await _unless_stopped(stop, composing):
                return
            offers = composing.result()
            self._heartbeat = Heartbeat(
                self._apps, self._catalog.full_name("worker-heartbeat"), worker=self._worker_id, http=health.address,
                offers=offers, process=self._process, started_at=self._started_at,
            )  # fmt: skip
            for app in self._apps:
                await stack.enter_async_context(_running(app))
            for run in (*self._made.beside, self._watch_topics, self._live.run):
                stack.push_async_callback(end, asyncio.create_task(run()))
            self._heartbeat.start()
            stack.push_async_callback(self._heartbeat.stop)
            watchdog.start()
            stack.callback(watchdog.leave_within, self._settings.drain_timeout + AFTER_DRAIN_S)
            del self._problems["start"]
            logger.info("%s is ready: roles %s, %s", self._worker_id, ", ".join(self._roles), health.address)
            await self._watch(stop, watchdog)
            self._problems["stop"] = "it is stopping"
            logger.info("%s drains", self._worker_id)

    # --- topics ---

    async def _check_topics(self) -> None:
        """Wait for the cluster; then every topic must be right: a missing one is ignored for ever by consumers."""
        told = False
        while True:
            try:
                refused = await wrongs(
                    self._access, self._catalog, self._settings.allowed_providers, self._roles,
                    production=self._settings.production,
                )  # fmt: skip
                if refused:
                    raise StartError("; ".join(refused))
                wrong = await unusable(self._access, self._catalog, self._settings.allowed_providers)
                break
            except RefusedError as error:
                raise StartError(str(error)) from None
            except TopicsError as error:
                self._problems["kafka"] = f"{error}; this worker keeps trying"
                if not told:
                    logger.warning("%s; this worker keeps trying", error)
                told = True
            await asyncio.sleep(RETRY_S)
        self._problems.pop("kafka", None)
        if wrong:
            raise StartError(_told(wrong))

    async def _watch_topics(self) -> None:
        """A topic that is deleted hangs its producers and is ignored by its consumers: nobody else would say so.

        At the second look the process ends, without another commit: one that is tried until the topic is there again
        would have its group begin in the new one where the old one ended. It does not start while a topic is missing.
        """
        missing: set[str] = set()

        async def look() -> None:
            nonlocal missing
            allowed = self._settings.allowed_providers
            try:
                wrong = await unusable(self._access, self._catalog, allowed)
                denied = await lacking(self._access, self._catalog, allowed, self._roles) if self._has_acls else []
            except TopicsError:
                return  # the cluster is away, or takes us no more: `_current_problems` tells
            if denied and "acls" not in self._problems:
                logger.critical("%s", told(denied, self._access.security.principal))
            if wrong and "topics" not in self._problems:
                logger.critical("%s", _told(wrong))
            self._problems.pop("topics", None)
            self._problems.pop("acls", None)
            if denied:
                self._problems["acls"] = told(denied, self._access.security.principal)
            if wrong:
                self._problems["topics"] = _told(wrong)
            still, missing = missing, {found.topic for found in wrong if found.action == "create"}
            self._has_lost_a_topic = bool(still & missing)

        await repeat(look, "watching topics", every_s=TOPICS_EVERY_S, begins_at_once=False)

    def _look_for_twin(self, name: str, beat: WorkerHeartbeat | None) -> None:
        """The group takes a static name from whoever had it before; without a word to that one, and it would take it
        back, and so on without end.
        """
        if name != self._worker_id or beat is None or beat.process == self._process or beat.started_at is None:
            return
        if beat.started_at > self._started_at and not beat.stopped:
            self._twin = beat

    # --- watching ---

    async def _watch(self, stop: asyncio.Event, watchdog: Watchdog) -> None:
        while not stop.is_set():
            watchdog.tick()
            if (refusal := self._access.refusal) != self._told_refusal:
                self._told_refusal = refusal
                logger.critical("%s", refusal or f"Kafka at {self._access.bootstrap_servers} takes us again")
            for app in self._apps:
                if app.crashed:
                    logger.critical("%s has crashed: this process ends", app.role, exc_info=app.crash_reason)
                    logging.shutdown()
                    os._exit(70)
            if self._has_lost_a_topic:
                logger.critical("%s: this process ends", self._problems["topics"])
                logging.shutdown()
                os._exit(70)
            if self._twin is not None:
                if self._heartbeat is not None:
                    self._heartbeat.says_good_bye = False
                raise NameTakenError(
                    f"another process (at {self._twin.http}) was started with WORKER_ID={self._worker_id}, and the "
                    "consumer group gives it this one's partitions: this process ends; give each its own WORKER_ID"
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1)

    def _current_problems(self) -> dict[str, str]:
        problems = dict(self._problems)
        for topic, table in self._tables.items():
            if not table.is_running:
                problems[topic] = "it is not followed; this worker keeps trying"
        cancellation_log = self._made.cancellation_log
        if cancellation_log is not None and cancellation_log.problem is not None:
            problems["cancelling"] = cancellation_log.problem
        if self._heartbeat is not None:
            if self._heartbeat.answered_at is None:
                problems["heartbeat"] = "nobody has heard of this worker yet"
            elif monotonic() - self._heartbeat.answered_at > HEARTBEAT_LATE_S:
                problems["kafka"] = "the cluster has not answered a heartbeat for 20 s"
            if refusal := self._access.refusal:
                problems["kafka"] = refusal
            if not self._clock():
                problems["clock"] = f"this machine's clock is {self._heartbeat.clock_skew_s:.0f} s off the brokers'"
            if any(app.rebalancing for app in self._apps):
                problems["group"] = "the consumer group rebalances"
            for lane in (lane for app in self._apps for lane in app.lanes.values()):
                if lane.luck.problem is not None:
                    problems[lane.name] = lane.luck.problem
        return problems

    def _clock(self) -> bool:
        return self._heartbeat is None or abs(self._heartbeat.clock_skew_s) <= MAX_CLOCK_SKEW_S

    def _stalled_for_s(self) -> float:
        """How long records could have been delivered and none was; called by the watchdog's thread."""
        if self._heartbeat is None or monotonic() - self._heartbeat.looked_at > HEARTBEAT_LATE_S:
            self._stalled_since = None
            answered_at = self._heartbeat.answered_at if self._heartbeat else None
            if self._heartbeat is None or answered_at is None or monotonic() - answered_at > HEARTBEAT_LATE_S / 2:
                self._deaf_since = None
                return 0.0  # the cluster does not answer: nobody knows whether anything waits
            # It takes what this worker says, and yet the consumers' threads do not come to ask it anything.
            self._deaf_since = self._deaf_since or monotonic()
            return monotonic() - self._deaf_since
        self._deaf_since = None
        now, longest = monotonic(), 0.0
        for app in self._apps:
            waits = any(
                self._heartbeat.deliverable.get(lane.name) and not lane.is_full for lane in list(app.lanes.values())
            )
            # What was waiting when it was looked for may have been delivered meanwhile, and nothing has come since.
            if waits and not app.rebalancing and app.consumer.delivered_at < self._heartbeat.asked_at:
                longest = max(longest, now - app.consumer.delivered_at)
        if not longest:
            self._stalled_since = None
            return 0.0
        self._stalled_since = self._stalled_since or now
        return min(longest, now - self._stalled_since)

    def _set_gauges(self) -> None:
        for app in self._apps:
            for lane in app.lanes.values():
                metrics.IN_FLIGHT.labels(lane.name).set(lane.pending)


@contextlib.asynccontextmanager
async def _running(app: StreamApp) -> AsyncIterator[None]:
    async with faust_app_running(app):
        yield
    # Before anything that stages work with is closed under them, which they would take for a bug.
    await asyncio.gather(*(lane.cut() for lane in app.lanes.values()))


def _told(wrong: Sequence[Difference]) -> str:
    differences = "; ".join(str(difference) for difference in wrong)
    return f"the topics are not what this version needs: {differences}; run `assistant topics apply`"


async def _unless_stopped(stop: asyncio.Event, work: Awaitable[object]) -> bool:
    """Do it, or leave off when told to stop; True if it was done."""
    doing, stopping = asyncio.ensure_future(work), asyncio.create_task(stop.wait())
    await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if doing.done():
        await doing
        return True
    await end(doing)
    return False
