"""`assistant recover`, as people see it."""

import asyncio
from collections.abc import Awaitable, Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from embedded.addresses import addresses
from embedded.home import Home
from processors.errors import RetryableError
from recover.errors import RecoverError
from recover.events import Redriven, redrive
from recover.progress import Report
from recover.rows import Rebuilt, rebuild
from schemas.audio_links import AudioLinks
from schemas.topics import Catalog
from settings import Settings
from sinks.migrate import head_revision, revision
from sinks.pool import Pool
from transport.admin import TopicsError, unusable
from transport.clients import KafkaAccess

SHOWN_USERS = 20
NOTHING_OF = (
    "on no topic, so only in a backup of Postgres: API keys, examples and adapters, comparisons, what agents remember, "
    "audio of speech, images and files, webhook secrets that were rotated (docs/recovery.md)"
)


class _Bars:
    """A bar per step."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._task = progress, TaskID(-1)

    def begin(self, what: str, total: int) -> None:
        self._task = self._progress.add_task(what, total=total or None)

    def advance(self, done: int) -> None:
        self._progress.advance(self._task, done)


def postgres(settings: Settings, *, webhooks: bool) -> int:
    """Rebuild rows from the topics; returns the exit code."""

    async def work(access: KafkaAccess, catalog: Catalog, pool: Pool, report: Report) -> list[str]:
        links = _audio_links(settings)
        if webhooks and links is None:
            raise RecoverError("JWT_SECRET_KEY must be set as workers have it: webhooks of speech are signed with it")
        rebuilt = await rebuild(access, catalog, pool, webhooks=webhooks, report=report, audio_links=links)
        return _told_of_rows(rebuilt, webhooks=webhooks)

    return _run(settings, work)


def kafka(settings: Settings) -> int:
    """Bring users and unfinished jobs back to the topics; returns the exit code."""

    async def work(access: KafkaAccess, catalog: Catalog, pool: Pool, report: Report) -> list[str]:
        return _told_of_events(await redrive(access, catalog, pool, report=report))

    return _run(settings, work)


def _audio_links(settings: Settings) -> AudioLinks | None:
    """As the workers of this deployment have them; None where the secret is not known here."""
    given = (settings.jwt_secret_key, settings.jwt_secret_key_previous)
    secrets = [secret.get_secret_value() for secret in given if secret]
    if not secrets and addresses(settings).running is not None:
        secrets = [Home(settings.assistant_home).secret("jwt_secret_key")]
    return AudioLinks(secrets) if secrets else None


def _told_of_rows(rebuilt: Rebuilt, *, webhooks: bool) -> list[str]:
    lines = [f"{rebuilt.outcomes} outcomes and {rebuilt.admitted} admitted jobs were gone through"]
    if not webhooks:
        lines.append("no webhook is sent again for them; with --webhooks every one would be")
    if rebuilt.unknown_users:
        some = ", ".join(rebuilt.unknown_users[:SHOWN_USERS])
        lines.append(
            f"{len(rebuilt.unknown_users)} users are to be registered again, since passwords are on no topic "
            f"(root: `assistant setup`; others: POST /auth/register): {some}"
        )
    if rebuilt.lost_documents:
        lost = sorted(rebuilt.lost_documents.items())
        some = ", ".join(f"{user_id} ({count})" for user_id, count in lost[:SHOWN_USERS])
        lines.append(
            f"{sum(rebuilt.lost_documents.values())} documents of {len(lost)} users are to be ingested again, but "
            f"those that were deleted since: which there are, and their files, was in Postgres alone: {some}"
        )
    lines.append(NOTHING_OF)
    return lines


def _told_of_events(redriven: Redriven) -> list[str]:
    lines = [
        f"{redriven.users} users and {redriven.jobs} jobs were published; {redriven.cancelled} jobs ended as "
        f"cancelled, {redriven.known} were there already"
    ]
    if redriven.keys:
        lines.append(f"{redriven.keys} idempotency keys are of jobs that are gone: asked for again, they are published")
    if redriven.lost:
        lines.append(f"{redriven.lost} jobs cannot be begun again: their rows hold no request")
    return lines


def _run(
    settings: Settings, work: Callable[[KafkaAccess, Catalog, Pool, Report], Awaitable[list[str]]]
) -> int:  # fmt: skip
    console, errors = Console(), Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as progress:
        try:
            lines = asyncio.run(_with_parts(settings, work, _Bars(progress)))
        except (RecoverError, RetryableError, TopicsError, OSError) as error:
            errors.print(str(error), markup=False, highlight=False)
            return 1
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


async def _with_parts(
    settings: Settings, work: Callable[[KafkaAccess, Catalog, Pool, Report], Awaitable[list[str]]], report: Report
) -> list[str]:
    there = addresses(settings)
    if there.kafka is None or there.postgres is None:
        raise RecoverError("KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL must be set, or `assistant up` run here")
    access = KafkaAccess(there.kafka, settings.kafka_security)
    catalog = Catalog.load(prefix=settings.kafka_topic_prefix)
    if found := await unusable(access, catalog, settings.allowed_providers):
        raise RecoverError(f"{'; '.join(map(str, found))}: run `assistant setup` first")
    if await revision(there.postgres) != head_revision():
        raise RecoverError("the database has not this version's schema: run `assistant setup` first")
    pool = Pool(there.postgres, size=2)
    try:
        return await work(access, catalog, pool, report)
    finally:
        await pool.close()
