"""Refuses what would wait too long, before anything is published: by what the workers' heartbeats say.

A stage's waiting time is what waits for it over what it finishes. What it finished in the last minute tells how fast
it is only if it had something to do all the time, so a stage that has just fallen behind refuses nobody yet.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from ingress.http.problems import Problem
from schemas.events import WorkerHeartbeat
from schemas.requests import JobKind
from transport.workers import SILENT_WORKER_S, answers_prompts

JUDGED_S = 0.2  # a verdict is good for so long: it costs more than the rest of the check
MEASURED_S = 60.0  # heartbeats say what was finished in so long
MAX_RETRY_AFTER_S = 60.0
# The role of a stage, and whether there is one of it for each provider.
WORK = {
    "generate_completion": ("completion", True), "embed_texts": ("completion", True),
    "retrieve_context": ("retrieval", False), "partition_document": ("ingestion", False),
    "embed_chunks": ("ingestion", False), "generate_speech": ("speech", False),
    "store_example": ("sink", False), "plan_agent_step": ("agent", False), "run_tool": ("agent", False),
    "train_adapter": ("training", False),
}  # fmt: skip
# The work that a job waits for.
STAGES: dict[JobKind, tuple[str, ...]] = {
    "chat": ("generate_completion",), "embedding": ("embed_texts",), "search": ("retrieve_context",),
    "rag": ("retrieve_context", "generate_completion"), "document": ("partition_document", "embed_chunks"),
    "agent": ("plan_agent_step", "run_tool"), "smart": ("generate_completion", "plan_agent_step", "run_tool"),
}  # fmt: skip
GATE_STAGES = ("sanitize_prompt", "limit_rate", "route_job")


class Backpressure:
    """Hears every heartbeat; asked before each publication."""

    def __init__(
        self, *, max_wait_s: float, allowed: Sequence[str], default: str | None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        """`allowed`, `default`: providers, from which the router chooses where a request names none."""
        self._max_wait_s, self._allowed, self._default, self._now = max_wait_s, allowed, default, now
        self._began = now()
        self._beats: dict[str, WorkerHeartbeat] = {}
        self._heard: dict[
            str, datetime
        ] = {}  # by this process's clock: a worker whose own is wrong is there all the same
        self._behind_since: dict[str, datetime] = {}
        self._judged: dict[tuple[str | None, str], tuple[str, float] | None] = {}
        self._judged_at = self._began

    def hear(self, worker: str, beat: WorkerHeartbeat | None) -> None:
        """A worker's newest heartbeat; None: there is no such worker."""
        now = self._now()
        self._judged.clear()
        self._beats.pop(worker, None)
        if beat is not None:
            self._beats[worker], self._heard[worker] = beat, now
        for name in [name for name, known in self._beats.items() if known.is_forgotten(now)]:
            del self._beats[name]
        self._heard = {name: self._heard[name] for name in self._beats}
        behind = {load.stage for alive in self._alive() for load in alive.stages if load.lag > 0}
        self._behind_since = {stage: self._behind_since.get(stage, now) for stage in behind}

    def check(self, provider: str | None, *, stage: str = "generate_completion") -> None:
        """Return where a job for this stage of a provider (None: whichever) would soon be begun.

        Raises:
            Problem: `overloaded`, with `Retry-After`.
        """
        now = self._now()
        if (now - self._judged_at).total_seconds() >= JUDGED_S:
            self._judged.clear()
            self._judged_at = now
        asked = (provider, stage)
        if asked not in self._judged:
            self._judged[asked] = self._judge(provider, stage)
        if (reason := self._judged[asked]) is not None:
            raise _overloaded(*reason)

    def _judge(self, provider: str | None, stage: str) -> tuple[str, float] | None:
        """Why nothing is taken, and in how many seconds to ask again."""
        role, is_of_a_provider = WORK[stage]
        target = None
        if is_of_a_provider:
            present = {name for beat in self._alive() for name in _answering(beat)}
            target = provider or self._router_choice(present)
        absent_s = max(self._absent_s("gate", None), self._absent_s(role, target))
        if absent_s > self._max_wait_s:
            return f"no worker has been there for {absent_s:.0f} s", MAX_RETRY_AFTER_S
        stages: tuple[str, ...] = GATE_STAGES
        if target is not None or not is_of_a_provider:
            stages = (*GATE_STAGES, f"{stage}-{target}" if is_of_a_provider else stage)
        wait_s = max(self.waiting_s(name) for name in stages)
        if wait_s > self._max_wait_s:
            return f"jobs wait for {wait_s:.0f} s", min(wait_s - self._max_wait_s, MAX_RETRY_AFTER_S)
        return None

    def waiting_s(self, stage: str) -> float:
        """How long a job that comes now would wait for a stage: over all live workers, what waits by what ends."""
        loads = [load for beat in self._alive() for load in beat.stages if load.stage == stage]
        waiting, finished = sum(load.lag for load in loads), sum(load.finished_last_minute for load in loads)
        since = self._behind_since.get(stage)
        if not waiting or since is None:
            return 0.0
        behind_s = (self._now() - since).total_seconds()
        if behind_s < min(MEASURED_S, self._max_wait_s):
            return 0.0
        # Where nothing at all was finished, it has at least lasted so long.
        return waiting / finished * min(MEASURED_S, behind_s) if finished else behind_s

    def _absent_s(self, role: str, provider: str | None) -> float:
        """How long there has been no live worker of the role, as far as was heard; 0 where there is one."""
        now, last = self._now(), self._began
        for worker, beat in self._beats.items():
            if role in beat.roles and (provider is None or provider in _answering(beat)):
                if self._is_alive(worker, now):
                    return 0.0
                last = max(last, self._heard[worker])
        return (now - last).total_seconds()

    def _router_choice(self, present: set[str]) -> str | None:
        if self._default in present:
            return self._default
        return next((name for name in self._allowed if name in present), None)

    def _alive(self) -> list[WorkerHeartbeat]:
        now = self._now()
        return [beat for worker, beat in self._beats.items() if self._is_alive(worker, now)]

    def _is_alive(self, worker: str, now: datetime) -> bool:
        return not self._beats[worker].stopped and (now - self._heard[worker]).total_seconds() < SILENT_WORKER_S


def _answering(beat: WorkerHeartbeat) -> set[str]:
    """Providers that it asks for answers, or vectors."""
    return {offer.name for offer in beat.providers if answers_prompts(offer)}


def _overloaded(detail: str, retry_after_s: float) -> Problem:
    wait = max(1, round(retry_after_s))
    return Problem(
        503, "overloaded", f"{detail}; nothing was accepted, try again in {wait} s", headers={"Retry-After": str(wait)},
        retry_after_s=wait,
    )  # fmt: skip
