"""A worker process: composes settings, adapters and apps, and keeps them running until it is told to stop."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from time import monotonic
from typing import Any, TypeVar
from uuid import uuid4

from aiokafka.errors import KafkaError
from faust.contrib.asgi import faust_app_running

from processors.fall_over import FallOver
from processors.limit_rate import RateLimiter
from processors.prompt_policy import PromptPolicy
from processors.route_job import KnownProviders
from schemas.events import Event, Job, ProviderOffer, UserUpdated, WorkerHeartbeat
from schemas.ids import JobIds
from schemas.redrive import RedriveMarks
from schemas.topics import Catalog
from settings import Settings
from sinks.dead_letters import DeadLetterSink, DeadLetterStore, sweep
from sinks.due_store import DueStore
from sinks.payloads import PayloadStore
from sinks.payloads import sweep as sweep_payloads
from sinks.pool import Pool
from sinks.postgres import JobStore, OutcomeSink, PendingSink
from sinks.webhook_signing import WebhookSecrets
from sinks.webhooks import WebhookSender
from streams import metrics
from streams.admission_log import AdmissionLog
from streams.app import StreamApp
from streams.assistant import GateParts, declare_completion, declare_embedding, declare_gate, declare_sink
from streams.cancellation_log import CancellationLog
from streams.cancellations import Cancellations
from streams.deadlines import Deadlines
from streams.deltas import DeltaTopic
from streams.encode import Encoder
from streams.entry import Entry
from streams.guards import make_guard
from streams.health import HealthServer
from streams.heartbeat import MAX_CLOCK_SKEW_S, Heartbeat
from streams.images import StoredImages
from streams.provider_watch import ProviderWatch
from streams.providers import configured
from streams.quarantine import Quarantine
from streams.releaser import Releaser
from streams.serve import StageServer
from streams.watchdog import Watchdog
from transport.admin import Difference, TopicsError, unusable
from transport.clients import KafkaAccess
from transport.ports import why_not
from transport.table import CompactedTable
from transport.workers import EMBEDDINGS, kept, present_providers, seen_providers

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)
Offers = Callable[[], Sequence[ProviderOffer]]
RETRY_S = 1.0
HEARTBEAT_LATE_S = 20.0
TOPICS_EVERY_S = 5.0


class StartError(Exception):
    """The worker cannot start; the message says what to do."""


class NameTakenError(Exception):
    """Another process has this one's WORKER_ID."""


class Worker:
    """One process with some of the roles."""

    def __init__(self, settings: Settings, roles: Sequence[str]) -> None:
        """Raises StartError where a setting is missing."""
        self._settings, self._roles = settings, roles
        if settings.kafka_bootstrap_servers is None:
            raise StartError("KAFKA_BOOTSTRAP_SERVERS is not set: name the cluster, or run `assistant up`")
        self._access = KafkaAccess(settings.kafka_bootstrap_servers)
        self._catalog = Catalog.load(prefix=settings.kafka_topic_prefix)
        self._encoder = Encoder(self._catalog)
        self._worker_id = settings.worker_id or f"{'-'.join(roles)}-{socket.gethostname()}-{uuid4().hex[:6]}"
        self._process, self._started_at = uuid4().hex, datetime.now(UTC)
        self._twin: WorkerHeartbeat | None = None
        self._problems: dict[str, str] = {"start": "it is starting"}
        self._heartbeat: Heartbeat | None = None
        self._cancellation_log: CancellationLog | None = None
        self._apps: list[StreamApp] = []
        self._quarantine = Quarantine()
        self._pool: Pool | None = None
        self._tables: dict[str, CompactedTable[Any]] = {}
        self._beside: list[Callable[[], Coroutine[None, None, None]]] = []  # run while the apps run
        self._stalled_since: float | None = None
        self._deaf_since: float | None = None
        self._has_lost_a_topic = False

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, then drain.

        Raises:
            StartError: A topic or a setting is missing, or the port is taken.
            NameTakenError: Another process was started under its name.
        """
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        health = HealthServer(problems=self._current_problems, before_scrape=self._set_gauges)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(health.stop)
            port = self._settings.worker_http_port
            try:
                await health.start(self._settings.worker_http_host, port)
            except OSError as error:
                raise StartError(why_not(port, error, setting="WORKER_HTTP_PORT")) from None
            if not await _unless_stopped(stop, self._check_topics()):
                return
            composing = asyncio.ensure_future(self._compose(stack))
            if not await _unless_stopped(stop, composing):
                return
            offers = composing.result()
            self._heartbeat = Heartbeat(
                self._apps, self._catalog.full_name("worker-heartbeat"), worker=self._worker_id, http=health.address,
                offers=offers, process=self._process, started_at=self._started_at,
            )  # fmt: skip
            watchdog = Watchdog(stall_timeout_s=self._settings.stall_timeout, stalled_for_s=self._stalled_for_s)
            for app in self._apps:
                await stack.enter_async_context(_running(app))
            for run in (*self._beside, self._watch_topics):
                stack.push_async_callback(_end, asyncio.create_task(run()))
            self._heartbeat.start()
            stack.push_async_callback(self._heartbeat.stop)
            watchdog.start()
            stack.callback(watchdog.stop)
            del self._problems["start"]
            logger.info("%s is ready: roles %s, %s", self._worker_id, ", ".join(self._roles), health.address)
            await self._watch(stop, watchdog)
            self._problems["stop"] = "it is stopping"
            logger.info("%s drains", self._worker_id)

    # --- composing ---

    async def _check_topics(self) -> None:
        """Wait for the cluster; then every topic must be right: a missing one is ignored for ever by consumers."""
        told = False
        while True:
            try:
                wrong = await unusable(self._access, self._catalog, self._settings.allowed_providers)
                break
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
        while True:
            await asyncio.sleep(TOPICS_EVERY_S)
            try:
                wrong = await unusable(self._access, self._catalog, self._settings.allowed_providers)
            except TopicsError:
                continue  # the cluster is away, which the heartbeat tells
            if wrong and "topics" not in self._problems:
                logger.critical("%s", _told(wrong))
            self._problems.pop("topics", None)
            if wrong:
                self._problems["topics"] = _told(wrong)
            still, missing = missing, {found.topic for found in wrong if found.action == "create"}
            self._has_lost_a_topic = bool(still & missing)

    async def _compose(self, stack: AsyncExitStack) -> Offers:
        offers: Offers | None = None
        if self._settings.postgres_dsn is not None:
            self._pool = Pool(self._settings.postgres_dsn, size=8)
            stack.push_async_callback(self._pool.close)
        users = await self._table(stack, "user-updated", UserUpdated)
        cancellations = await self._cancellations(stack, users)
        if self._settings.worker_id:
            await self._worker_table(stack)
        for role in self._roles:
            app = self._new_app(role)
            server = StageServer(
                app,
                self._encoder,
                max_retries=self._settings.max_retries,
                cancellations=cancellations,
                long_first_s=self._settings.retry_long_first_s,
                due=self._due_writer() if role == "completion" else None,
                clock_is_right=self._clock,
                ended_runs=JobStore(self._pool).ended_runs if self._pool else None,
            )
            if role == "gate":
                declare_gate(app, server, self._catalog, await self._gate_parts(stack, users, cancellations))
            elif role == "completion":
                offers = await self._declare_completion(app, server, stack)
                if offers is None:
                    logger.warning("no provider has its key or address here: the role completion has nothing to do")
                    continue
            else:
                await self._declare_sink(app, stack, cancellations)
            self._apps.append(app)
        if not self._apps:
            raise StartError(
                "no provider has its key or address: set OPENAI_API_KEY, GEMINI_API_KEY, or one of "
                "OLLAMA_BASE_URL, LMSTUDIO_BASE_URL, QWEN3_VL_BASE_URL, LOCAL_BASE_URL"
            )
        return offers or tuple

    def _new_app(self, role: str) -> StreamApp:
        settings = self._settings
        return StreamApp(
            role,
            self._access,
            group=self._catalog.group(role),
            session_timeout_s=settings.session_timeout_s,
            drain_timeout_s=settings.drain_timeout,
            revoke_drain_s=settings.revoke_drain_s,
            # A member that comes back under its name is not waited for; only for names that are the user's own.
            instance_id=f"{settings.worker_id}-{role}" if settings.worker_id else None,
            quarantine=self._quarantine,
            cool_down_s=settings.stage_cool_down_s,
        )

    def _due_writer(self) -> DueStore | None:
        if self._pool is None:
            logger.warning(
                "DATABASE_URL is not set: events that are to be tried later are held in this process, and a prompt "
                "with an image is a dead letter"
            )
            return None
        return DueStore(self._pool)

    async def _cancellations(self, stack: AsyncExitStack, users: CompactedTable[UserUpdated]) -> Cancellations:
        """Complete before anything is served, and followed until all is drained."""
        cancellations = Cancellations(users.values)
        topic = self._catalog.full_name("job-cancel-requested")
        self._cancellation_log = CancellationLog(self._access, topic, cancellations)
        await self._cancellation_log.start()
        stack.push_async_callback(self._cancellation_log.stop)
        return cancellations

    async def _gate_parts(
        self, stack: AsyncExitStack, users: CompactedTable[UserUpdated], cancellations: Cancellations
    ) -> GateParts:
        settings = self._settings
        workers = await self._worker_table(stack)
        secrets = self._master_secrets()

        def limit_of(job: Job) -> int | None:
            user: UserUpdated | None = users.values.get(job.user_id)
            if user is not None and user.rate_limit_requests is not None:
                return user.rate_limit_requests
            admin = job.role == "admin"
            return settings.rate_limit_admin_requests if admin else settings.rate_limit_user_requests

        have = list(configured(settings))

        def known_providers() -> KnownProviders:
            return KnownProviders(
                present_providers(workers), seen_providers(workers), have, seen_providers(workers, can=EMBEDDINGS)
            )

        limiter = RateLimiter(limit_of=limit_of, window_s=settings.rate_limit_window)
        policy = PromptPolicy(
            max_prompt_chars=settings.max_prompt_length,
            forbidden_commands=settings.forbidden_commands,
            instruction_patterns=settings.instruction_patterns,
            exfiltration_patterns=settings.exfiltration_patterns,
            instruction_regex=settings.instruction_regex,
            role_override_regex=settings.role_override_regex,
            meta_system_regex=settings.meta_system_regex,
        )
        return GateParts(
            entry=Entry(users, JobIds(secrets), RedriveMarks(secrets), expires_after_s=settings.expires_after_s),
            users=users,
            policy=policy,
            limiter=limiter,
            admission_log=AdmissionLog(self._access, self._catalog.full_name("job-admitted"), limiter),
            known_providers=kept(known_providers),
            allowed_providers=settings.allowed_providers,
            default_provider=settings.default_provider,
            default_timeout_s=settings.llm_timeout,
            clock_is_right=self._clock,
            is_cancelled=cancellations.is_cancelled,
        )

    def _master_secrets(self) -> list[str]:
        """The deployment's secret, and the one that it replaces during a rotation."""
        current, previous = self._settings.jwt_secret_key, self._settings.jwt_secret_key_previous
        if current is None:
            raise StartError("JWT_SECRET_KEY is not set: make one with: openssl rand -base64 48")
        return [secret.get_secret_value() for secret in (current, previous) if secret]

    async def _declare_completion(self, app: StreamApp, server: StageServer, stack: AsyncExitStack) -> Offers | None:
        settings, found = self._settings, configured(self._settings)
        if not found:
            return None
        workers = await self._worker_table(stack)
        adapters = {name: one.make() for name, one in found.items()}
        for adapter in adapters.values():
            stack.push_async_callback(adapter.close)
        concurrency = {name: one.concurrency for name, one in found.items()}
        embedding: dict[str, Any] = {name: adapter for name, adapter in adapters.items() if adapter.capabilities.embeds}
        declare_embedding(app, server, self._catalog, embedding, concurrency=concurrency)
        guards = {name: make_guard(settings, app, self._catalog, adapter) for name, adapter in adapters.items()}
        fall_over = FallOver(
            frozenset(settings.fallover_on), settings.fallover_time_share, kept(lambda: present_providers(workers))
        )
        payloads = PayloadStore(self._pool) if self._pool else None
        declare_completion(
            app, server, self._catalog, adapters, concurrency=concurrency, guards=guards, fall_over=fall_over,
            deltas=DeltaTopic(app.offer, self._catalog.full_name("completion-streamed")),
            images=lambda: StoredImages(payloads),
            max_response_chars=self._settings.max_response_length,
        )  # fmt: skip
        watch = ProviderWatch(adapters, breaker_of=lambda name: guards[name].breaker.state)
        self._beside.append(watch.run)
        return watch.offers

    async def _declare_sink(self, app: StreamApp, stack: AsyncExitStack, cancellations: Cancellations) -> None:
        settings = self._settings
        pool = self._pool
        if pool is None:
            raise StartError("DATABASE_URL is not set: name the database, or run `assistant up`")
        secrets = WebhookSecrets(pool, masters=self._master_secrets())
        sender = WebhookSender(
            pool, secrets, allow_private=settings.webhook_allow_private, timeout_s=settings.webhook_timeout_s
        )
        sending = asyncio.create_task(sender.run(), name="webhooks")
        stack.push_async_callback(_end, sending)
        stack.push_async_callback(sender.close)
        deadlines = Deadlines(
            app, self._encoder, JobStore(pool), finished_topic=self._catalog.full_name("job-finished"),
            clock_is_right=self._clock,
        )  # fmt: skip
        self._beside += [Releaser(app, DueStore(pool), cancellations=cancellations).run, deadlines.run]
        kept_ms = self._catalog["dead-letters"].retention_ms
        for sweeping in (sweep(DeadLetterStore(pool), kept_ms=kept_ms), sweep_payloads(PayloadStore(pool))):
            stack.push_async_callback(_end, asyncio.create_task(sweeping))
        declare_sink(
            app, self._catalog, pending=PendingSink(pool), outcomes=OutcomeSink(pool, webhook_due=sender.wake),
            dead_letters=DeadLetterSink(pool),
        )  # fmt: skip

    async def _worker_table(self, stack: AsyncExitStack) -> CompactedTable[WorkerHeartbeat]:
        known = self._tables.get("worker-heartbeat")
        return known or await self._table(
            stack, "worker-heartbeat", WorkerHeartbeat, forget=lambda beat: beat.is_forgotten(datetime.now(UTC)),
            on_change=self._look_for_twin,
        )  # fmt: skip

    def _look_for_twin(self, name: str, beat: WorkerHeartbeat | None) -> None:
        """The group takes a static name from whoever had it before; without a word to that one, and it would take it
        back, and so on without end.
        """
        if name != self._worker_id or beat is None or beat.process == self._process or beat.started_at is None:
            return
        if beat.started_at > self._started_at and not beat.stopped:
            self._twin = beat

    async def _table(
        self, stack: AsyncExitStack, topic: str, event: type[E], *, forget: Callable[[E], bool] | None = None,
        on_change: Callable[[str, E | None], None] | None = None,
    ) -> CompactedTable[E]:  # fmt: skip
        table = CompactedTable(
            self._access, self._catalog.full_name(topic), event, forget=forget, on_change=on_change
        )  # fmt: skip
        while True:
            try:
                await table.start()
                break
            except (KafkaError, OSError) as error:
                logger.warning("%s cannot be read yet: %s", topic, error)
                await asyncio.sleep(RETRY_S)
        stack.push_async_callback(table.stop)
        self._tables[topic] = table
        return table

    # --- watching ---

    async def _watch(self, stop: asyncio.Event, watchdog: Watchdog) -> None:
        while not stop.is_set():
            watchdog.tick()
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
        if self._cancellation_log is not None and self._cancellation_log.problem is not None:
            problems["cancelling"] = self._cancellation_log.problem
        if self._heartbeat is not None:
            if self._heartbeat.answered_at is None:
                problems["heartbeat"] = "nobody has heard of this worker yet"
            elif monotonic() - self._heartbeat.answered_at > HEARTBEAT_LATE_S:
                problems["kafka"] = "the cluster has not answered a heartbeat for 20 s"
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
            if waits and not app.rebalancing:
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
    await _end(doing)
    return False


async def _end(task: "asyncio.Future[Any]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
