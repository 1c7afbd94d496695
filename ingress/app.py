"""The composition root of the ingress."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from aiokafka.errors import KafkaError
from fastapi import FastAPI
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from ingress.access.credentials import Access
from ingress.access.key_ring import KeyRing
from ingress.access.login_limit import LoginLimit
from ingress.access.passwords import Passwords
from ingress.access.standings import Standings, UserRules
from ingress.adapters import AdapterChecks
from ingress.agent_runs import Agents
from ingress.announcer import Announcer
from ingress.cluster import ClusterWatch
from ingress.comparisons.compare_table import CompareRules
from ingress.comparisons.comparing import Comparing, Pace
from ingress.costing import CostingCalls
from ingress.export_limit import Exports
from ingress.files import LARGEST_UPLOAD_BYTES, Files
from ingress.follower import Follower
from ingress.following.channels import Channels
from ingress.following.live import LiveDeltas
from ingress.following.past import PastDeltas
from ingress.http.bodies import LARGEST_BODY_BYTES, Bodies
from ingress.http.cors import install_cors
from ingress.http.json_limits import BoundedJson, JsonLimits
from ingress.http.middleware import Edge
from ingress.http.problems import install as install_problems
from ingress.http.uploads import Places
from ingress.limits import Limits
from ingress.missing_setting import MissingSettingError
from ingress.openai_api.model_names import Models
from ingress.operations import install_docs, install_metrics
from ingress.outcome import Outcome, outcome_of
from ingress.publisher import Publisher
from ingress.redrive import Redriver
from ingress.routes import ROUTERS, WITH_SHORTCUTS
from ingress.services import Services
from ingress.shortcuts import install_shortcuts
from ingress.submitting.backpressure import Backpressure
from ingress.submitting.cancel_requests import CancelRequests
from ingress.submitting.idempotency import Idempotency
from ingress.submitting.images import Images
from ingress.submitting.submission import Rules, Submissions
from ingress.voices import SpeechOffers
from processors.errors import RetryableError
from processors.limits.usage import MAX_RECALLED, Usage
from processors.loops import Loop, end
from schemas.audio_links import AudioLinks
from schemas.events import UserUpdated, WorkerHeartbeat
from schemas.ids import JobIds
from schemas.redrive import RedriveMarks
from schemas.topics import Catalog
from settings import Settings
from sinks.adapters import AdapterStore
from sinks.agent_steps import AgentStepStore
from sinks.api_keys import ApiKeyStore
from sinks.comparisons import ComparisonStore
from sinks.dead_letters import DeadLetterStore
from sinks.document_lists import DocumentLists
from sinks.due_store import DueStore
from sinks.egress_targets import Allowed
from sinks.examples import ExampleStore
from sinks.idempotency import IdempotencyStore
from sinks.incidents import IncidentStore
from sinks.job_deletion import JobDeletion
from sinks.job_export import JobExport
from sinks.login_failures import LoginFailures
from sinks.payloads import PayloadStore
from sinks.pool import Pool
from sinks.postgres import JobStore
from sinks.users import UserStore
from sinks.webhook_signing import WebhookSecrets
from sinks.webhook_store import WebhookStore
from transport.clients import KafkaAccess
from transport.table import CompactedTable
from transport.tokens import Tokens
from transport.workers import (
    SPEECH,
    TRAINING,
    kept,
    live_workers,
    offered_providers,
    present_providers,
    why_not_training,
)
from vault.live import LiveSettings

logger = logging.getLogger(__name__)
RETRY_S, MAX_WAIT_S = 1.0, 10.0
DESCRIPTION = """Ask an assistant, and wait, poll, or get a signed webhook. Every request is a job that flows through
Kafka topics. Press **Authorize**, log in (the first admin is `root`), and call everything from here."""


def create_app(settings: Settings) -> FastAPI:
    """The ASGI app. It comes up at once, and is ready when Kafka is.

    Raises:
        MissingSettingError: A setting without a default is missing.
    """
    made = compose(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.services = made
        async with AsyncExitStack() as stack:
            stack.push_async_callback(made.database.close)
            stack.push_async_callback(made.files.close)
            made.publisher.start()
            stack.push_async_callback(made.publisher.stop)
            made.announcer.start()
            stack.push_async_callback(made.announcer.stop)
            made.access.start()
            stack.push_async_callback(made.access.stop)
            made.follower.start()
            stack.push_async_callback(made.follower.stop)
            made.channels.start()
            stack.push_async_callback(made.channels.stop)
            made.idempotency.start()
            stack.push_async_callback(made.idempotency.stop)
            made.comparing.start()
            stack.push_async_callback(made.comparing.stop)
            stack.push_async_callback(end, asyncio.create_task(_recall(made)))
            for table in (made.user_table, made.workers):
                starting = asyncio.create_task(_start(table))
                stack.push_async_callback(table.stop)
                stack.push_async_callback(end, starting)
            for run in (app.state.live.run, app.state.cluster.run):
                stack.push_async_callback(end, asyncio.create_task(run()))
            yield

    app = FastAPI(
        title="assistant-stream", version="0.1.0", description=DESCRIPTION, lifespan=lifespan,
        docs_url=None, redoc_url=None, openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looked for with each request: 3 % of it
    )  # fmt: skip
    app.state.services, app.state.live = made, LiveSettings(settings)
    app.state.cluster = ClusterWatch(settings)
    install_problems(app)
    for router in ROUTERS:
        app.include_router(router)
    install_metrics(app, public=settings.public_metrics)
    install_docs(app, public=settings.public_docs)
    install_shortcuts(app, WITH_SHORTCUTS)
    large = dict.fromkeys(("/chat/", "/chat/async", "/v1/chat/completions"), LARGEST_BODY_BYTES)
    large |= dict.fromkeys(("/payloads", "/ingestion/ingest"), LARGEST_UPLOAD_BYTES)  # who reads them says how much
    app.add_middleware(BoundedJson, limits=_json_limits(settings), but=frozenset(large))
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_body_bytes)
    install_cors(app, settings.cors_allowed_origins)
    app.add_middleware(
        Edge, max_body_bytes=settings.max_body_bytes, is_stopping=lambda: made.submissions.draining,
        larger=large, max_under_way=settings.max_requests_under_way,
        standing_of=CostingCalls(ROUTERS, made.access, made.standings).standing,
    )  # fmt: skip
    return app


def compose(settings: Settings) -> Services:
    """Everything that the routes work with, not started yet."""
    for value, name, example in (
        (settings.kafka_bootstrap_servers, "KAFKA_BOOTSTRAP_SERVERS", "host:9092"),
        (settings.postgres_dsn, "DATABASE_URL", "postgresql://user:password@host/name"),
        (settings.jwt_secret_key, "JWT_SECRET_KEY", "the output of: openssl rand -base64 48"),
    ):
        if value is None:
            raise MissingSettingError(f"{name} is not set: set it to {example}, or run `assistant up`")
    access = KafkaAccess(settings.kafka_bootstrap_servers or "", settings.kafka_security)
    catalog = Catalog.load(prefix=settings.kafka_topic_prefix)
    secrets = [key.get_secret_value() for key in (settings.jwt_secret_key, settings.jwt_secret_key_previous) if key]
    database = Pool(settings.postgres_dsn or "", size=8)
    store = JobStore(database)
    publisher = Publisher(access, timeout_s=settings.publish_timeout_s)
    usage = Usage()
    follower = Follower(
        access, progressed=catalog.full_name("job-progressed"), finished=catalog.full_name("job-finished"), store=store,
        usage=usage,
    )  # fmt: skip
    user_rules = UserRules(
        window_s=settings.rate_limit_window,
        user_limit=settings.rate_limit_user_requests,
        admin_limit=settings.rate_limit_admin_requests,
        max_pending=settings.max_pending_jobs_per_user,
    )
    standings = Standings(user_rules, usage)
    idempotency = Idempotency(IdempotencyStore(database), publish_timeout_s=settings.publish_timeout_s)
    backpressure = Backpressure(
        max_wait_s=settings.max_queue_wait_s, allowed=settings.allowed_providers, default=settings.default_provider
    )  # fmt: skip
    worker_table = CompactedTable(
        access, catalog.full_name("worker-heartbeat"), WorkerHeartbeat, on_change=backpressure.hear,
        forget=lambda beat: beat.is_forgotten(datetime.now(UTC)),
    )  # fmt: skip
    job_ids = JobIds(secrets)
    cancel_requests = CancelRequests(
        publisher, follower, topic=catalog.full_name("job-cancel-requested"), wait_s=settings.admission_wait_ms / 1000
    )
    rules = Rules(
        topic=catalog.full_name("job-requested"),
        allowed_providers=settings.allowed_providers,
        default_timeout_s=settings.llm_timeout,
        admission_wait_s=settings.admission_wait_ms / 1000,
        expires_after_s=settings.expires_after_s,
        document_expires_after_s=settings.document_expires_after_s,
        training_expires_after_s=settings.training_expires_after_s,
        callback_allow_private=settings.webhook_allow_private,
        callback_allowed=Allowed(
            hosts=frozenset(settings.egress_allowed_hosts), ports=frozenset(settings.egress_allowed_ports)
        ),
    )
    letters = DeadLetterStore(database)
    payload_store, user_bytes = PayloadStore(database), settings.max_payload_bytes_per_user
    images = Images(payload_store, user_bytes=user_bytes)
    # Connections of their own: however many files come, nobody else waits for them.
    files = Files(
        PayloadStore(Pool(settings.postgres_dsn or "", size=4)), user_bytes=user_bytes,
        max_upload_mb=settings.max_upload_mb,
    )  # fmt: skip
    users_topic = catalog.full_name("user-updated")
    user_table = CompactedTable(access, users_topic, UserUpdated, on_change=lambda *change: callers.hear(*change))
    users, keys = UserStore(database), ApiKeyStore(database)
    tokens, key_ring = Tokens(secrets, lifetime_s=settings.jwt_expires_min * 60), KeyRing(keys)
    callers = Access(tokens, key_ring, user_table)
    speech_offers = SpeechOffers(
        kept(lambda: offered_providers(worker_table, can=SPEECH)), is_known=lambda: bool(live_workers(worker_table)),
        allowed=settings.allowed_providers, max_chars=settings.max_speech_chars, default_s=settings.llm_timeout,
    )  # fmt: skip
    examples = ExampleStore(database)
    adapters = AdapterStore(database, max_per_user=settings.max_adapters_per_user)
    adapter_checks = AdapterChecks(
        adapters, examples, present=kept(lambda: present_providers(worker_table)),
        training=kept(lambda: present_providers(worker_table, can=TRAINING)),
        why_not=kept(lambda: why_not_training(worker_table)), is_known=lambda: bool(live_workers(worker_table)),
        allowed=settings.allowed_providers,
    )  # fmt: skip
    submissions = Submissions(
        publisher,
        follower,
        job_ids,
        rules,
        cancel_requests=cancel_requests,
        present_providers=kept(lambda: present_providers(worker_table)),
        offers=kept(lambda: offered_providers(worker_table)),
        idempotency=idempotency,
        backpressure=backpressure,
        images=images,
        files=files,
        standings=standings,
        speech=speech_offers,
        adapters=adapter_checks,
    )

    async def stored_outcome(job_id: UUID) -> Outcome | None:
        try:
            row = await store.get(job_id)
        except RetryableError:
            return None  # the follower looks it up once Postgres is back
        return outcome_of(row) if row is not None and row.status != "pending" else None

    streamed = catalog.full_name("completion-streamed")
    channels = Channels(
        follower, LiveDeltas(access, streamed), PastDeltas(access, streamed, readers=settings.stream_past_readers),
        find=stored_outcome, max_listeners=settings.max_stream_listeners, max_bytes=settings.stream_buffer_bytes,
        max_job_bytes=settings.stream_job_buffer_bytes, is_draining=lambda: submissions.draining,
    )  # fmt: skip
    # Connections of their own: however many comparisons are run here, calls never wait for them.
    comparing = Comparing(
        Pool(settings.postgres_dsn or "", size=2),
        submissions,
        cancel_requests,
        job_ids,
        user_of=lambda user_id: user_table.values.get(user_id),
        users_known=lambda: user_table.is_running,
        pace=Pace(
            in_flight=settings.compare_in_flight,
            unknown_after_s=settings.publish_timeout_s,
            lost_after_s=settings.expires_after_s + 600,
        ),
    )
    return Services(
        catalog=catalog,
        publisher=publisher,
        follower=follower,
        submissions=submissions,
        standings=standings,
        limits=Limits(max_page=settings.max_page_size, max_listeners=settings.max_stream_listeners_per_user),
        bodies=Bodies(
            Places(),
            max_body_bytes=settings.max_body_bytes,
            read_within_s=settings.body_timeout_s,
            json_limits=_json_limits(settings),
            max_fields=settings.max_form_fields,
            max_field_bytes=settings.max_form_field_bytes,
        ),
        images=images,
        files=files,
        documents=DocumentLists(database),
        payloads=payload_store,
        speech=speech_offers,
        audio_links=AudioLinks(secrets),
        channels=channels,
        idempotency=idempotency,
        cancel_requests=cancel_requests,
        user_table=user_table,
        workers=worker_table,
        models=kept(lambda: Models(offered_providers(worker_table), allows=submissions.asked.allows)),
        database=database,
        jobs=store,
        deletion=JobDeletion(database),
        exports=Exports(JobExport(database)),
        examples=examples,
        adapters=adapters,
        comparisons=ComparisonStore(database),
        comparing=comparing,
        compare_rules=CompareRules(
            per_user=settings.max_comparisons_per_user, prices=settings.prices_per_million_tokens
        ),
        due=DueStore(database),
        users=users,
        webhooks=WebhookStore(database),
        webhook_secrets=WebhookSecrets(database, masters=secrets),
        dead_letters=letters,
        incidents=IncidentStore(database),
        redriver=Redriver(
            letters,
            publisher,
            catalog,
            job_ids,
            RedriveMarks(secrets),
            providers=settings.allowed_providers,
            expires_after_s=settings.expires_after_s,
        ),
        tokens=tokens,
        access=callers,
        keys=key_ring,
        api_keys=keys,
        passwords=Passwords(),
        login_limit=LoginLimit(per_min=settings.login_failures_per_min),
        login_failures=LoginFailures(database),
        announcer=Announcer(users, publisher, user_table, topic=users_topic),
        job_ids=job_ids,
        expires_after_s=settings.expires_after_s,
        agents=Agents(
            AgentStepStore(database), api_hosts=settings.agent_api_hosts, has_vectors=settings.qdrant_url is not None
        ),
    )


def _json_limits(settings: Settings) -> JsonLimits:
    return JsonLimits(max_depth=settings.max_json_depth, max_values=settings.max_json_values)


async def _start(table: CompactedTable[Any]) -> None:
    loop = Loop("reading a table", max_wait_s=MAX_WAIT_S)
    while True:
        try:
            await table.start()
        except (KafkaError, OSError) as error:
            logger.warning("a table cannot be read yet (%s); the ingress keeps trying", type(error).__name__)
            await asyncio.sleep(RETRY_S)
        except Exception as bug:
            await asyncio.sleep(loop.met(bug))
        else:
            return


async def _recall(made: Services) -> None:
    """What is under way already, also before this replica was here; once."""
    loop = Loop("recalling what is under way", max_wait_s=MAX_WAIT_S)
    while True:
        try:
            made.standings.recall(await made.jobs.under_way(limit=MAX_RECALLED))
        except RetryableError:
            await asyncio.sleep(RETRY_S)
        except Exception as bug:
            await asyncio.sleep(loop.met(bug))
        else:
            return
