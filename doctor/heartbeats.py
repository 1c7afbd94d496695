"""What workers have said of themselves in the last minute, and how far clocks are off the brokers'."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic, time

from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import ValidationError

from doctor.finding import Finding
from schemas.events import WorkerHeartbeat, utc_from_ms
from settings import ROLES
from transport.clients import KafkaAccess

LOOK_BACK_MS = 60_000
READ_WITHIN_S = 8.0
SILENT_S = 15.0
MAX_SKEW_S, NOTED_SKEW_S = 30.0, 2.0  # beyond the first a worker is not ready


@dataclass(frozen=True, slots=True)
class Beat:
    """A worker's newest heartbeat, and when the broker got it."""

    said: WorkerHeartbeat
    appended_at: datetime

    @property
    def skew_s(self) -> float:
        """How far the worker's clock is ahead of the broker's."""
        return (self.said.at - self.appended_at).total_seconds()


async def newest_beats(access: KafkaAccess, topic: str) -> list[Beat]:
    """The newest one of each worker, in no group; only the last minute is read.

    Raises:
        KafkaError: The cluster does not answer.
    """
    beats: dict[str, Beat] = {}
    consumer = AIOKafkaConsumer(**access.options(), enable_auto_commit=False, fetch_max_wait_ms=50)
    try:
        await consumer.start()
        at = TopicPartition(topic, 0)
        consumer.assign([at])
        end = (await consumer.end_offsets([at]))[at]
        found = (await consumer.offsets_for_times({at: int(time() * 1000) - LOOK_BACK_MS}))[at]
        if found is None or found.offset >= end:
            return []
        consumer.seek(at, found.offset)
        deadline = monotonic() + READ_WITHIN_S
        while await consumer.position(at) < end and monotonic() < deadline:
            for record in (await consumer.getmany(at, timeout_ms=500)).get(at, ()):
                try:
                    said = WorkerHeartbeat.model_validate_json(record.value or b"")
                except ValidationError:
                    continue
                beats[said.worker] = Beat(said, utc_from_ms(record.timestamp))
    finally:
        await consumer.stop()
    return list(beats.values())


def judge(
    beats: Sequence[Beat], *, now: datetime | None = None, expected: bool, speaks: bool = False, knows: bool = True,
    trains: bool = False,
) -> list[Finding]:  # fmt: skip
    """Who is there, and whose clock is off.

    `expected`: workers should run; `speaks`: the role speech has work; `knows`: there is a place for documents;
    `trains`: a provider is there whose model can learn.
    """
    now = now or datetime.now(UTC)
    live = [beat for beat in beats if not beat.said.stopped and (now - beat.appended_at).total_seconds() < SILENT_S]
    covered = {role for beat in live for role in beat.said.roles}
    optional = {
        *(() if speaks else ("speech",)), *(() if trains else ("training",)),
        *(() if knows else ("retrieval", "agent", "ingestion")),
    }  # fmt: skip
    missing = [role for role in ROLES if role not in covered and role not in optional]
    found = ", ".join(f"{beat.said.worker} ({' '.join(beat.said.roles)})" for beat in live) or "none was heard of"
    if not missing:
        workers = Finding("workers", "ok", found)
    else:
        advice = f"start: assistant worker --roles {','.join(missing)}"
        workers = Finding("workers", "wrong" if live or expected else "absent", found, advice)
    return [workers, *_clocks(live, now)]


def _clocks(live: Sequence[Beat], now: datetime) -> list[Finding]:
    if not live:
        return []
    skews = {beat.said.worker: beat.skew_s for beat in live}
    # What the broker has just got cannot lie in our future.
    skews["this machine"] = min(0.0, min((now - beat.appended_at).total_seconds() for beat in live))
    worst = max(skews, key=lambda who: abs(skews[who]))
    found = f"the most is {skews[worst]:+.1f} s off the brokers' ({worst})"
    if abs(skews[worst]) > MAX_SKEW_S:
        return [
            Finding("clocks", "wrong", found, "set the clock (NTP): such a worker is not ready and expires nothing")
        ]
    if abs(skews[worst]) > NOTED_SKEW_S:
        return [Finding("clocks", "warning", found, "set the clock (NTP)")]
    return [Finding("clocks", "ok", found)]
