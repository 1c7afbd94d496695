"""The role `sink`: what stores, releases, sends and sweeps, and what of it is made from which settings."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from processors.loops import end
from schemas.audio_links import AudioLinks
from schemas.events import UserUpdated
from schemas.topics import Catalog
from settings import Settings
from sinks.agent_steps import AgentStepStore
from sinks.agent_steps import sweep as sweep_agent_steps
from sinks.dead_letters import DeadLetterSink, DeadLetterStore
from sinks.dead_letters import sweep as sweep_dead_letters
from sinks.due_store import DueStore
from sinks.egress_targets import Allowed
from sinks.incidents import IncidentSink, IncidentStore, QuarantineRules
from sinks.incidents import sweep as sweep_incidents
from sinks.job_deletion import JobDeletion
from sinks.job_deletion import sweep as sweep_deleted_jobs
from sinks.login_failures import LoginFailures
from sinks.login_failures import sweep as sweep_login_failures
from sinks.payloads import PayloadStore
from sinks.payloads import sweep as sweep_payloads
from sinks.pool import Pool
from sinks.postgres import JobStore, OutcomeSink, PendingSink
from sinks.users import UserRow
from sinks.webhook_signing import WebhookSecrets
from sinks.webhooks import WebhookSender
from streams.app import StreamApp
from streams.assistant import declare_sink
from streams.cancellations import Cancellations
from streams.deadlines import Deadlines
from streams.disabled_users import DisabledUsers
from streams.encode import Encoder
from streams.errors import StartError
from streams.releaser import Releaser
from streams.serve_sink import as_dead_letters
from transport.table import CompactedTable


@dataclass(frozen=True, slots=True)
class Storing:
    """The role, once it is declared.

    Attributes:
        beside: To be run while the app runs.
        hear_of_user: To be told of every change of a user.
    """

    beside: Sequence[Callable[[], Coroutine[None, None, None]]]
    hear_of_user: Callable[[str, UserUpdated | None], None]


def declare_storing(
    app: StreamApp, catalog: Catalog, encoder: Encoder, stack: AsyncExitStack, *, settings: Settings, pool: Pool | None,
    masters: Sequence[str], cancellations: Cancellations, users: CompactedTable[UserUpdated],
    clock_is_right: Callable[[], bool],
) -> Storing:  # fmt: skip
    """Declare the sinks' agents, and begin to send webhooks and to sweep; what is to be closed goes on the stack.

    Raises:
        StartError: There is no database.
    """
    if pool is None:
        raise StartError("DATABASE_URL is not set: name the database, or run `assistant up`")
    allowed = Allowed(hosts=frozenset(settings.egress_allowed_hosts), ports=frozenset(settings.egress_allowed_ports))
    sender = WebhookSender(
        pool, WebhookSecrets(pool, masters=masters), allow_private=settings.webhook_allow_private, allowed=allowed,
        timeout_s=settings.webhook_timeout_s,
    )  # fmt: skip
    stack.push_async_callback(end, asyncio.create_task(sender.run(), name="webhooks"))
    stack.push_async_callback(sender.close)
    finished = catalog.full_name("job-finished")
    deadlines = Deadlines(app, encoder, JobStore(pool), finished_topic=finished, clock_is_right=clock_is_right)
    disabled = DisabledUsers(app, encoder, JobStore(pool), users.values, finished_topic=finished)
    releaser = Releaser(app, DueStore(pool), cancellations=cancellations)
    _sweep(stack, settings, dead_letters_kept_ms=catalog["dead-letters"].retention_ms)
    declare_sink(
        app, catalog, pending=PendingSink(pool),
        outcomes=OutcomeSink(pool, webhook_due=sender.wake, audio_links=AudioLinks(masters)),
        dead_letters=DeadLetterSink(pool),
        incidents=_incident_sink(app, pool, settings, users_topic=catalog.full_name("user-updated")),
        give_up=partial(as_dead_letters, app, encoder),
    )  # fmt: skip
    return Storing((releaser.run, deadlines.run, disabled.run), disabled.hear)


def _sweep(stack: AsyncExitStack, settings: Settings, *, dead_letters_kept_ms: int | None) -> None:
    slow = Pool(settings.postgres_dsn or "", size=1)  # one at a time, beside those whose work cannot wait
    stack.push_async_callback(slow.close)
    for sweeping in (
        sweep_dead_letters(DeadLetterStore(slow), kept_ms=dead_letters_kept_ms), sweep_payloads(PayloadStore(slow)),
        sweep_login_failures(LoginFailures(slow), kept_days=settings.login_failures_kept_days),
        sweep_incidents(IncidentStore(slow), kept_days=settings.incident_ttl_days),
        sweep_agent_steps(AgentStepStore(slow), kept_days=settings.agent_memory_ttl_days),
        sweep_deleted_jobs(JobDeletion(slow)),
    ):  # fmt: skip
        stack.push_async_callback(end, asyncio.create_task(sweeping))


def _incident_sink(app: StreamApp, pool: Pool, settings: Settings, *, users_topic: str) -> IncidentSink:
    async def announce(user: UserRow) -> None:
        await app.publish([user.announcement(users_topic, source="/sink")])

    rules = QuarantineRules(
        after=settings.quarantine_after, window_s=settings.quarantine_window_s, lasts_s=settings.quarantine_s,
        admins=settings.quarantine_admins,
    )  # fmt: skip
    return IncidentSink(pool, rules, announce=announce)
