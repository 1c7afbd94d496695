"""One look at the system after the end: rows, outcomes in the log, dead letters, committed offsets."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from chaos.checker import Hook, Observed, Row
from chaos.outcome import outcome_hash
from chaos.provider import KEY
from schemas.topics import Catalog

GROUPS: Mapping[str, tuple[str, ...]] = {
    "gate": ("job-requested", "prompt-sanitized", "job-admitted"),
    "completion": ("completion-requested-{provider}",),
    "sink": ("job-admitted", "job-finished"),
}
MARK = "chaos-mark"


async def observe(dsn: str, bootstrap: str, catalog: Catalog, *, provider: str) -> Observed:
    """All that the checker needs."""
    rows, hooks = await look_at_rows(dsn)
    log = await look_at_log(bootstrap, catalog)
    stages: dict[str, str] = {}
    open_jobs = {job for job, row in rows.items() if row.status == "pending"}
    for name in ("prompt-sanitized", "job-admitted", "completion-requested-{provider}"):
        topic = catalog.full_name(name, provider=provider if "{" in name else None)

        def take_stage(record: Any, topic: str = topic) -> None:
            job = (_json(record.value).get("job") or {}).get("job_id")
            if job and job not in log.finished:
                stages[job] = f"last seen on {topic}"

        if open_jobs:
            await _read(bootstrap, topic, take_stage)
    lag = await lag_of(bootstrap, catalog, provider)
    return Observed(rows, log.finished, hooks, lag, frozenset(log.buried), stages, log.letters)


@dataclass(slots=True)
class Log:
    """What the topics say; as in `Observed`."""

    finished: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    buried: set[str] = field(default_factory=set)
    letters: dict[str, frozenset[str]] = field(default_factory=lambda: defaultdict(frozenset))


async def look_at_log(bootstrap: str, catalog: Catalog) -> Log:
    """Outcomes and dead letters."""
    log = Log()

    def take_outcome(record: Any) -> None:
        told = _json(record.value)
        if "job" in told and "status" in told:
            found = outcome_hash(told["status"], told.get("result"), (told.get("error") or {}).get("code"))
            if found not in log.finished[told["job"]["job_id"]]:
                log.finished[told["job"]["job_id"]].append(found)

    def take_letter(record: Any) -> None:
        headers = dict(record.headers)
        if "dlq-job-id" in headers:
            log.letters[headers["dlq-job-id"].decode()] |= {headers["dlq-code"].decode()}
        if MARK in headers and headers[MARK].decode() == fingerprint(record.value):
            log.buried.add(headers[MARK].decode())

    await _read(bootstrap, catalog.full_name("job-finished"), take_outcome)
    await _read(bootstrap, catalog.full_name("dead-letters"), take_letter)
    return log


def fingerprint(value: bytes) -> str:
    """A record's mark says what its bytes were."""
    from hashlib import sha256

    return sha256(value).hexdigest()[:20]


async def look_at_rows(dsn: str) -> tuple[dict[str, Row], dict[str, list[Hook]]]:
    """Jobs and webhooks."""
    connection = await asyncpg.connect(dsn)
    rows: dict[str, Row] = {}
    hooks: dict[str, list[Hook]] = defaultdict(list)
    now = datetime.now(UTC)
    try:
        async with connection.transaction():
            async for row in connection.cursor(
                "SELECT job_id, status, result, error, attempts FROM jobs", prefetch=2000
            ):
                result = orjson.loads(row["result"]) if row["result"] else None
                error = orjson.loads(row["error"]) if row["error"] else {}
                attempts = orjson.loads(row["attempts"]) if row["attempts"] else []
                found = KEY.match((result or {}).get("prompt") or "")
                rows[str(row["job_id"])] = Row(
                    row["status"], outcome_hash(row["status"], result, error.get("code")), len(attempts),
                    found.group(1) if found else None, error.get("code"),
                )  # fmt: skip
            async for row in connection.cursor("SELECT webhook_id, job_id, state, due_at FROM webhooks", prefetch=2000):
                overdue = row["state"] == "due" and row["due_at"] < now
                hooks[str(row["job_id"])].append(Hook(row["webhook_id"], "overdue" if overdue else row["state"]))
    finally:
        await connection.close()
    return rows, hooks


async def _read(bootstrap: str, topic: str, take: Callable[[Any], None]) -> None:
    """Every record that is in a topic now."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    take(record)
    finally:
        await consumer.stop()


async def lag_of(bootstrap: str, catalog: Catalog, provider: str) -> dict[str, int]:
    """Records that are not committed, by group and partition."""
    found: dict[str, int] = {}
    for role, names in GROUPS.items():
        group = f"{catalog.prefix}assistant-{role}"
        topics = [catalog.full_name(name, provider=provider if "{" in name else None) for name in names]
        consumer = AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap)  # joins nothing: the group is only asked
        await consumer.start()
        try:
            ends = await consumer.end_offsets(list(consumer.assignment()))
        finally:
            await consumer.stop()
        committed = await _committed(bootstrap, group, list(ends))
        for tp, end in ends.items():
            found[f"{group} {tp.topic}-{tp.partition}"] = max(0, end - committed.get(tp, 0))
    return found


async def _committed(bootstrap: str, group: str, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(group, partitions=partitions)
    finally:
        await admin.close()
    return {tp: max(0, at.offset) for tp, at in offsets.items()}


async def group_lag(bootstrap: str, catalog: Catalog, provider: str) -> int:
    """Records that are not committed, over all groups."""
    return sum((await lag_of(bootstrap, catalog, provider)).values())


def _json(value: bytes | None) -> dict[str, Any]:
    try:
        told = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}
