"""What must be there before anything runs: the schema, the topics, the first admin."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from time import monotonic

from ingress.access.passwords import Passwords
from ingress.announcer import announce
from ingress.missing_setting import MissingSettingError
from ingress.publisher import Publisher
from schemas.topics import Catalog
from settings import Settings
from sinks.migrate import migrate
from sinks.pool import Pool
from sinks.users import UserExistsError, UserStore
from transport.admin import apply
from transport.clients import KafkaAccess

logger = logging.getLogger(__name__)
CONNECT_WITHIN_S = 30.0


async def set_up(settings: Settings, *, partitions: int | None, report: Callable[[str], None]) -> None:
    """Bring database and topics to what this version wants, and have the admin `root`. May be called at any time.

    Args:
        settings: Where the parts are; `ROOT_USR_PASS` for the admin, who is left alone without it.
        partitions: At most so many per topic; None: as in `topics.yaml`.
        report: Told each step.

    Raises:
        MissingSettingError: Names the variable to set.
        TopicsError, OSError: A part refuses, or is away.
    """
    if settings.kafka_bootstrap_servers is None or settings.postgres_dsn is None:
        raise MissingSettingError("KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL must be set")
    await migrate(settings.postgres_dsn)
    report("the database has this version's schema")
    access = KafkaAccess(settings.kafka_bootstrap_servers, settings.kafka_security)
    catalog = Catalog.load(prefix=settings.kafka_topic_prefix)
    changed = await apply(access, catalog, settings.allowed_providers, partitions=partitions)
    report(f"the topics are as topics.yaml wants them ({len(changed)} changed)")
    if settings.root_usr_pass is None:
        return
    pool, publisher = Pool(settings.postgres_dsn, size=1), Publisher(access, timeout_s=settings.publish_timeout_s)
    publisher.start()
    try:
        deadline = monotonic() + CONNECT_WITHIN_S
        while publisher.problem is not None:
            if monotonic() > deadline:
                raise OSError(publisher.problem)
            await asyncio.sleep(0.05)
        await _ensure_root(
            settings.root_usr_pass.get_secret_value(), UserStore(pool), Passwords(), publisher,
            catalog.full_name("user-updated"),
        )  # fmt: skip
    finally:
        await publisher.stop()
        await pool.close()
    report("the admin root is there")


async def _ensure_root(password: str, users: UserStore, passwords: Passwords, publisher: Publisher, topic: str) -> None:
    """The first admin, `root`; an existing one keeps its password."""
    if await users.get("root") is None:
        with contextlib.suppress(UserExistsError):  # another replica was faster
            await users.create("root", await passwords.hash(password), "admin")
    await announce("root", users, publisher, topic)  # always: a new Kafka beside an old Postgres has not heard of it
