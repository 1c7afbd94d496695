"""Records that wait for a worker: published by librdkafka, as valid as those of the product itself."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from time import monotonic
from typing import Any

import confluent_kafka

from bench.place import PARTITIONS, USERS
from schemas.envelope import Attributes, Record
from schemas.events import (
    AgentStepRequested,
    Attempt,
    CompletionRequested,
    Job,
    JobFinished,
    JobRequested,
    StageTiming,
)
from schemas.ids import JobIds
from schemas.requests import AgentRequest, ChatRequest, JobKind
from streams.encode import Encoder
from tests.conftest import SECRET
from tests.deployment import Deployment

PROVIDER = "openai"
STAGES = ("sanitize_prompt", "limit_rate", "route_job", "generate_completion")
GIVE_UP_S = 120.0


class Backlog:
    """Of one deployment: puts records on its topics, and tells how far its workers are."""

    def __init__(self, deployment: Deployment) -> None:
        self._catalog, self._encoder = deployment.catalog, Encoder(deployment.catalog)
        self._job_ids, self._numbers = JobIds([SECRET]), count()
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": deployment.kafka.bootstrap, "acks": "all", "linger.ms": 20,
             "queue.buffering.max.messages": 1_000_000, "batch.size": 512 * 1024}
        )  # fmt: skip
        self._bootstrap = deployment.kafka.bootstrap
        self._watcher = self._reader("bench-looks-on")

    # --- publishing; blocks until the broker has all of it ---

    def job_requested(self, jobs: int) -> None:
        """What the ingress would have published."""

        def records() -> Iterable[Record]:
            for n in islice(self._numbers, jobs):
                user = USERS[n % len(USERS)]
                requested = JobRequested(user_id=user, kind="chat", request=_request(n))
                attributes = Attributes(str(self._job_ids.mint(user)), "/ingress", "job-requested")
                value = requested.model_dump_json(exclude_none=True).encode()
                yield Record(self.topic("job-requested"), user.encode(), value, attributes.headers())

        self._publish(records())

    def completion_requested(self, jobs: int, *, delay_s: float) -> None:
        """What the gate would have made of it; the provider's stand-in takes `delay_s` for each."""
        self._publish(
            self._encoded(
                CompletionRequested(
                    job=self._job(n, STAGES[:3]), provider=PROVIDER, request=_request(n, f" [delay={delay_s}]"),
                    timeout_s=30,
                ),
                "route_job",
            )
            for n in islice(self._numbers, jobs)
        )  # fmt: skip

    def agent_step_requested(self, runs: int, *, steps: int) -> None:
        """Runs at their first step, each of an agent of its own; their goals say how many steps they take."""
        self._publish(
            self._encoded(
                AgentStepRequested(
                    job=self._job(n, STAGES[:3], kind="agent"), provider=PROVIDER, timeout_s=30,
                    request=AgentRequest(goal=f"{steps} steps, run {n}", agent_id=f"bench-{n}", max_steps=steps),
                ),
                "route_job",
            )
            for n in islice(self._numbers, runs)
        )  # fmt: skip

    def job_finished(self, jobs: int) -> None:
        """Outcomes as the stages before leave them."""
        self._publish(
            self._encoded(
                JobFinished.completed(self._job(n, STAGES), result=_result(n), at=datetime.now(UTC)).with_attempts(
                    (Attempt(provider=PROVIDER, ms=3),)
                ),
                STAGES[3],
            )
            for n in islice(self._numbers, jobs)
        )

    def _publish(self, records: Iterable[Record]) -> None:
        refused: list[Any] = []
        for n, record in enumerate(records):
            headers: Any = record.headers
            self._producer.produce(
                record.topic, record.value, record.key, headers=headers,
                on_delivery=lambda error, _: refused.append(error) if error else None,
            )  # fmt: skip
            if n % 1000 == 0:
                self._producer.poll(0)
        self._producer.flush(60)
        if refused:
            raise RuntimeError(f"{len(refused)} records were refused: {refused[0]}")

    def _encoded(self, event: AgentStepRequested | CompletionRequested | JobFinished, stage: str) -> Record:
        cause = Attributes(str(self._job_ids.mint(event.job.user_id)), "/bench", "bench")
        return self._encoder.event(event, cause=cause, stage=stage, index=0)

    def _job(self, n: int, stages: Iterable[str], *, kind: JobKind = "chat") -> Job:
        user, now = USERS[n % len(USERS)], datetime.now(UTC)
        timings = tuple(StageTiming(stage=stage, started_at=now, ended_at=now) for stage in stages)
        return Job(
            job_id=self._job_ids.mint(user), user_id=user, role="user", kind=kind, accepted_at=now,
            expires_at=now + timedelta(hours=1), timings=timings,
        )  # fmt: skip

    # --- looking on ---

    def topic(self, name: str) -> str:
        """Its full name."""
        return self._catalog.full_name(name, provider=PROVIDER)

    async def published(self, name: str) -> int:
        """How many records a topic has."""
        return sum(self._watcher.get_watermark_offsets(at, timeout=10)[1] for at in self._partitions(name))

    async def until_committed(self, name: str, role: str, records: int) -> None:
        """Return once a role has finished so many records of a topic."""
        reader, deadline = self._reader(self._catalog.group(role)), monotonic() + GIVE_UP_S
        try:
            while (found := sum(max(0, at.offset) for at in reader.committed(self._partitions(name), 10))) < records:
                if monotonic() > deadline:
                    raise RuntimeError(f"{found} of {records} records of {name} committed after {GIVE_UP_S} s")
                await asyncio.sleep(0.1)
        finally:
            reader.close()

    def _partitions(self, name: str) -> list[confluent_kafka.TopicPartition]:
        return [confluent_kafka.TopicPartition(self.topic(name), n) for n in range(PARTITIONS)]

    def _reader(self, group: str) -> confluent_kafka.Consumer:
        return confluent_kafka.Consumer({"bootstrap.servers": self._bootstrap, "group.id": group})


def _request(n: int, more: str = "") -> ChatRequest:
    return ChatRequest(prompt=f"What is the {n}th thing that one should know?{more}")


def _result(n: int) -> dict[str, Any]:
    prompt = f"What is the {n}th thing that one should know?"
    return {
        "model": "stand-in", "prompt": prompt, "generation_config": {},
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
        "result": {"text": f"Answer to: {prompt}", "finish_reason": "stop"},
        "meta": {"provider": PROVIDER, "job_id": "00000000-0000-0000-0000-000000000000"},
    }  # fmt: skip
