"""What a worker is made of: from settings to adapters, tables and one app per role."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

from processors.completion.fall_over import FallOver
from processors.route_job import KnownProviders
from providers.prompt_classifier import HttpPromptClassifier
from schemas.events import ProviderOffer, UserUpdated, WorkerHeartbeat
from schemas.ids import JobIds
from schemas.redrive import RedriveMarks
from schemas.topics import Catalog
from settings import ROLES, Settings
from sinks.adapters import AdapterStore
from sinks.due_store import DueStore
from sinks.payloads import PayloadStore
from sinks.pool import Pool
from sinks.postgres import JobStore
from streams.admission_log import AdmissionLog
from streams.agents import declare_agent
from streams.app import StreamApp
from streams.assistant import GateParts, declare_completion, declare_embedding, declare_gate
from streams.cancellation_log import CancellationLog
from streams.cancellations import Cancellations
from streams.classifying import AT_ONCE, Classifying
from streams.deltas import DeltaTopic
from streams.encode import Encoder
from streams.entry import Entry
from streams.errors import StartError
from streams.examples import declare_examples
from streams.guards import make_guard, make_paced
from streams.images import StoredImages
from streams.made import Made, adapters_of
from streams.provider_watch import ProviderWatch
from streams.providers import configured
from streams.quarantine import Quarantine
from streams.rules import Newest, answer_rules, prompt_rules
from streams.serve import StageServer
from streams.speech import declare_speech
from streams.storing import declare_storing
from streams.tables import Tables
from streams.training import declare_training
from streams.user_limits import UserLimits
from streams.vectors import Vectors
from transport.clients import KafkaAccess
from transport.table import CompactedTable
from transport.tokens import Tokens
from transport.workers import (
    EMBEDDINGS,
    SPEECH,
    TRAINING,
    kept,
    present_providers,
    seen_providers,
    silent_providers,
    why_not_training,
)
from vault.live import LiveSettings

logger = logging.getLogger(__name__)

Offers = Callable[[], Sequence[ProviderOffer]]
# Whose work may be put off.
WITH_RETRIES = ("completion", "speech", "retrieval", "agent", "ingestion", "training", "sink")


class Composition:
    """All of it, once `compose` has returned. `beside`: to be run while the apps run."""

    def __init__(
        self,
        settings: Settings,
        roles: Sequence[str],
        access: KafkaAccess,
        catalog: Catalog,
        *,
        clock_is_right: Callable[[], bool],
        on_beat: Callable[[str, WorkerHeartbeat | None], None],
        live: LiveSettings,
    ) -> None:
        """What it is made from.

        Args:
            settings: Of the process.
            roles: As given on the command line.
            access: The cluster.
            catalog: Its topics.
            clock_is_right: False while nobody knows what time it is.
            on_beat: Told of each worker's heartbeat where they are followed.
            live: What becomes of the settings.
        """
        self._settings, self._roles, self._access, self._catalog = settings, roles, access, catalog
        self._clock_is_right, self._live = clock_is_right, live
        self._tables = Tables(access, catalog, on_beat=on_beat)
        self._encoder, self._quarantine = Encoder(catalog), Quarantine()
        self._pool: Pool | None = None
        self._vectors: Vectors | None = None
        self.apps: list[StreamApp] = []
        self.tables = self._tables.opened
        self.cancellation_log: CancellationLog | None = None
        self._told_of_users: list[Callable[[str, UserUpdated | None], None]] = []
        self.beside: list[Callable[[], Coroutine[None, None, None]]] = []

    async def compose(self, stack: AsyncExitStack) -> Offers:
        """Make all of it; what is to be closed goes on the stack. Returns what the worker offers.

        Raises:
            StartError: A setting is missing.
        """
        offering: list[Offers] = []
        if self._settings.postgres_dsn is not None:
            self._pool = Pool(self._settings.postgres_dsn, size=8)
            stack.push_async_callback(self._pool.close)
        users = await self._tables.open(stack, "user-updated", UserUpdated, on_change=self._hear_of_user)
        cancellations = await self._cancellations(stack, users)
        if self._settings.worker_id:
            await self._tables.workers(stack)
        made = Made(
            self._settings, self._pool, self._encoder, self._live, stack, Vectors(self._settings, stack)
        )  # fmt: skip
        for role in self._roles:
            app = self._new_app(role)
            server = StageServer(
                app,
                self._encoder,
                max_retries=self._settings.max_retries,
                cancellations=cancellations,
                long_first_s=self._settings.retry_long_first_s,
                due=self._due_writer() if role in WITH_RETRIES else None,
                clock_is_right=self._clock_is_right,
                ended_runs=JobStore(self._pool).ended_runs if self._pool else None,
            )
            if role == "gate":
                declare_gate(app, server, self._catalog, await self._gate_parts(stack, users, cancellations))
            elif role == "completion":
                offers = await self._declare_completion(app, server, made)
                if offers is None:
                    logger.warning("no provider has its key or address here: the role completion has nothing to do")
                    continue
                offering.append(offers)
            elif role in ("retrieval", "ingestion"):
                if not made.vectors.are_named and len(self._roles) == len(ROLES):  # nobody has asked for this one
                    logger.warning("QDRANT_URL is not set: the role %s is left to other workers", role)
                    continue
                from streams import knowledge  # what it imports takes 80 MB, which no other role is to have

                declare = knowledge.declare_retrieval if role == "retrieval" else knowledge.declare_ingestion
                if not await declare(app, server, self._catalog, made):
                    logger.warning("no provider that makes vectors is here: the role %s has nothing to do", role)
                    continue
            elif role == "agent":
                # A folder of vectors has one owner: an agent asks it where a role that fills it is in the same process.
                is_owner = made.vectors.are_named and bool({"retrieval", "ingestion"} & set(self._roles))
                has_vectors = self._settings.qdrant_url is not None or is_owner
                if not await declare_agent(app, server, self._catalog, made, has_vectors=has_vectors):
                    logger.warning("no provider has its key or address here: the role agent has nothing to do")
                    continue
            elif role == "speech":
                speaking = await declare_speech(app, server, self._catalog, made)
                if speaking is None:
                    logger.warning("no provider that speaks is here: the role speech has nothing to do")
                    continue
                offering.append(speaking.offers)
                self.beside.append(speaking.run)
            elif role == "training":
                training = await declare_training(app, server, self._catalog, made)
                if training is None:
                    logger.warning("no provider whose model can learn is here: the role training has nothing to do")
                    continue
                offering.append(training)
            else:
                storing = declare_storing(
                    app, self._catalog, self._encoder, stack, settings=self._settings, pool=self._pool,
                    masters=self._master_secrets(), cancellations=cancellations, users=users,
                    clock_is_right=self._clock_is_right,
                )  # fmt: skip
                self._told_of_users.append(storing.hear_of_user)
                self.beside += storing.beside
                declare_examples(app, server, self._catalog, made)
            self.apps.append(app)
        if not self.apps:
            raise StartError(
                "no provider has its key or address: set OPENAI_API_KEY, GEMINI_API_KEY, or one of "
                "OLLAMA_BASE_URL, LMSTUDIO_BASE_URL, QWEN3_VL_BASE_URL, LOCAL_BASE_URL, LOCAL_EMBEDDING_URL; for the "
                "role speech TTS_API_URL, QWEN_TTS_BASE_URL or LOCAL_SPEECH_URL; for the role training "
                "QWEN3_VL_BASE_URL, or allow local"
            )
        return lambda: [offer for offers in offering for offer in offers()]

    def _hear_of_user(self, user_id: str, user: UserUpdated | None) -> None:
        for tell in self._told_of_users:
            tell(user_id, user)

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
        self._told_of_users.append(cancellations.hear_of_user)
        topic = self._catalog.full_name("job-cancel-requested")
        self.cancellation_log = CancellationLog(self._access, topic, cancellations)
        await self.cancellation_log.start()
        stack.push_async_callback(self.cancellation_log.stop)
        return cancellations

    async def _gate_parts(
        self, stack: AsyncExitStack, users: CompactedTable[UserUpdated], cancellations: Cancellations
    ) -> GateParts:
        settings = self._settings
        workers = await self._tables.workers(stack)
        secrets = self._master_secrets()

        have = list(configured(settings))

        def known_providers() -> KnownProviders:
            return KnownProviders(
                present_providers(workers), seen_providers(workers), have, seen_providers(workers, can=EMBEDDINGS),
                silent_providers(workers), present_providers(workers, can=SPEECH), seen_providers(workers, can=SPEECH),
                present_providers(workers, can=TRAINING), seen_providers(workers, can=TRAINING),
                why_not_training(workers),
            )  # fmt: skip

        limits = UserLimits(settings, self._access, self._catalog, users.values, pool=self._pool)
        for user in users.values.values():
            limits.hear(user.user_id, user)
        self._told_of_users.append(limits.hear)
        stack.push_async_callback(limits.usage_log.stop)
        policy = Newest(prompt_rules, settings, self._live)
        warming = asyncio.create_task(asyncio.to_thread(policy().warm))  # meanwhile there is enough to begin with

        async def warmed() -> None:
            await warming

        stack.push_async_callback(warmed)
        classifying = None
        if settings.prompt_classifier_url is not None:
            timeout_s = settings.prompt_classifier_timeout_s
            classifier = HttpPromptClassifier(settings.prompt_classifier_url, timeout_s=timeout_s, connections=AT_ONCE)
            stack.push_async_callback(classifier.close)
            classifying = Classifying(classifier, policy, timeout_s=timeout_s)
        return GateParts(
            classifying=classifying,
            needs_score=settings.prompt_classifier_failure == "refuse",
            entry=Entry(
                users,
                JobIds(secrets),
                RedriveMarks(secrets),
                expires_after_s=settings.expires_after_s,
                document_expires_after_s=settings.document_expires_after_s,
                training_expires_after_s=settings.training_expires_after_s,
                tokens=Tokens(secrets, lifetime_s=settings.jwt_expires_min * 60)
                if settings.event_token_required
                else None,
            ),
            users=users,
            policy=policy,
            limiter=limits.limiter,
            admission_log=AdmissionLog(self._access, self._catalog.full_name("job-admitted"), limits.limiter),
            usage_log=limits.usage_log,
            known_providers=kept(known_providers),
            allowed_providers=settings.allowed_providers,
            default_provider=settings.default_provider,
            default_embedding=settings.embedding_provider,
            default_timeout_s=settings.llm_timeout,
            clock_is_right=self._clock_is_right,
            is_cancelled=cancellations.is_cancelled,
            is_disabled=cancellations.is_disabled,
        )

    def _master_secrets(self) -> list[str]:
        """The deployment's secret, and the one that it replaces during a rotation."""
        current, previous = self._settings.jwt_secret_key, self._settings.jwt_secret_key_previous
        if current is None:
            raise StartError("JWT_SECRET_KEY is not set: make one with: openssl rand -base64 48")
        return [secret.get_secret_value() for secret in (current, previous) if secret]

    async def _declare_completion(self, app: StreamApp, server: StageServer, made: Made) -> Offers | None:
        settings, found = self._settings, configured(self._settings)
        if not found:
            return None
        workers = await self._tables.workers(made.stack)
        adapters = adapters_of(made)
        concurrency = {name: one.concurrency for name, one in found.items()}
        embedding: dict[str, Any] = {
            name: make_paced(settings, app, self._catalog, adapter)
            for name, adapter in adapters.items()
            if adapter.capabilities.embeds
        }
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
            max_response_chars=settings.max_response_length, answers=Newest(answer_rules, settings, self._live),
            link_hosts=settings.answer_link_hosts, adapters=AdapterStore(self._pool) if self._pool else None,
        )  # fmt: skip
        watch = ProviderWatch(adapters, breaker_of=lambda name: guards[name].breaker.state)
        self.beside.append(watch.run)
        return watch.offers
