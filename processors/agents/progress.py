"""What is told of a step to whoever follows a run; texts are cut, for followers keep them in memory."""

import json
from datetime import datetime

from schemas.events import AgentProgress, JobProgressed, ToolCallRequested

TOLD_CHARS, TOLD_INPUT_CHARS = 500, 1_000


def progress(event: ToolCallRequested, stage: str, *, at: datetime, observation: str | None = None) -> JobProgressed:
    """Of a step that was planned, and where `observation` is given, has come to its end."""
    job, given = event.job, event.action_input
    is_small = len(json.dumps(given, ensure_ascii=False)) <= TOLD_INPUT_CHARS
    told = AgentProgress(
        step=event.step, max_steps=event.request.max_steps, thought=event.thought[:TOLD_CHARS], action=event.action,
        action_input=given if is_small else {}, observation=observation[:TOLD_CHARS] if observation else observation,
    )  # fmt: skip
    return JobProgressed(
        job_id=job.job_id, run=job.run, user_id=job.user_id, stage=stage, state="working", at=at, agent=told
    )
