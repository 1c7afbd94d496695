"""Agents: running them, watching them, letting them call out, and what they remember."""

from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Query, Response

from ingress.agent_runs import shown, waiting_call
from ingress.chat import JOBS, as_job
from ingress.http.problems import Problem, not_found
from ingress.jobs import WAITS_FOR_USER, view_of
from ingress.services import TOO_MANY, CostingUser, CurrentUser, Found, Services
from ingress.submitting.idempotency import Key
from schemas.events import UserUpdated
from schemas.request_fields import CallbackUrl
from schemas.requests import AgentId, AgentRequest
from sinks.agent_steps import MAX_MEMORY

router = APIRouter(prefix="/agents", tags=["agents"])

KINDS = ("agent", "smart")
RUN_EXAMPLE = {
    "job_id": "...", "status": "completed", "error": None,
    "history": [{
        "step": 1, "thought": "I know it.", "action": "finish", "action_input": {"answer": "Paris."},
        "observation": "Paris.",
    }],
    "result": {"answer": "Paris.", "finish_reason": "stop", "usage": {"total_tokens": 210}},
}  # fmt: skip
RUN: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The run: its steps so far, and how it ended. `state` is `requires_action` while a call waits "
        "for your approval, which `requires_action` tells of",
        "content": {"application/json": {"example": RUN_EXAMPLE}},
    },
    404: {"description": "There is no such run, or it is somebody else's"},
}
DECIDED: dict[int | str, dict[str, Any]] = {
    202: {"description": "The run goes on", "content": {"application/json": {"example": {
        "job_id": "...", "step": 2, "approval": "approved"}}}},
    404: RUN[404],
    409: {"description": "No call of this run waits for approval"},
    429: TOO_MANY,
}  # fmt: skip
AgentName = Annotated[AgentId, Path(description="As it was named in `POST /agents/run`")]


class AgentBody(AgentRequest):
    """Body of `POST /agents/run`: the same, with where to send the outcome."""

    callback_url: CallbackUrl | None = None


@router.post("/run", status_code=202, responses=JOBS)
async def run(body: AgentBody, user: CostingUser, found: Found, key: Key) -> Response:
    """Give an agent a goal; it goes step by step, each with one of `GET /agents/tools`, until it has an answer.

    `max_steps` (1-20) bounds the steps, `timeout` each question to its provider. Its steps are told by
    `GET /jobs/{job_id}/stream` as `progress`, and by `GET /agents/{job_id}`.
    """
    names = AgentRequest.model_fields
    request = AgentRequest.model_construct(
        body.model_fields_set & names.keys(), **{name: getattr(body, name) for name in names}
    )
    return as_job(*await found.submissions.accepted(user, request, callback_url=body.callback_url, keyed=key))


@router.get("/tools")
async def tools(user: CurrentUser, found: Found) -> Response:  # noqa: ARG001 only for who is logged in
    """What agents can do here, each tool with the schema of its input."""
    return _json({"tools": found.agents.tools})


@router.get("/memory/{agent_id}", responses={404: {"description": "Your agent of that name remembers nothing"}})
async def memory(
    agent_id: AgentName, user: CurrentUser, found: Found, limit: Annotated[int, Query(ge=1, le=MAX_MEMORY)] = 50
) -> Response:
    """What your agent of this name remembers of its runs: the newest steps first."""
    steps = await found.agents.steps.memory(user.user_id, agent_id, limit=limit)
    if not steps:
        raise not_found()
    items = [
        {
            "job_id": str(one.job_id), "step": one.step, "goal": one.goal, "action": one.action,
            "action_input": one.action_input, "observation": one.observation, "is_untrusted": one.is_untrusted,
            "at": at.isoformat(),
        }
        for one, at in steps
    ]  # fmt: skip
    return _json({"agent_id": agent_id, "items": items, "next": None})


@router.delete(
    "/memory/{agent_id}",
    status_code=204,
    responses={404: {"description": "Your agent of that name remembers nothing"}, 429: TOO_MANY},
)
async def forget(agent_id: AgentName, user: CostingUser, found: Found) -> Response:
    """Let your agent of this name forget all that it has done; the jobs keep their history."""
    found.submissions.count(user)
    if not await found.agents.steps.forget(user.user_id, agent_id):
        raise not_found()
    return Response(status_code=204)


@router.get("/{job_id}", responses=RUN)
async def agent_run(job_id: UUID, user: CurrentUser, found: Found) -> Response:
    """A run: its steps while it goes on, and what came of it."""
    view = await view_of(job_id, user, found, kinds=KINDS)
    history = await found.agents.steps.history(job_id)
    told: dict[str, Any] = {
        "job_id": view["job_id"], "status": view["status"], "history": [shown(step) for step in history],
        "result": view.get("result"), "error": view.get("error"),
    }  # fmt: skip
    if view["status"] == "pending":
        call = waiting_call(history)
        told |= {name: view[name] for name in ("stage", "state") if name in view}
        if call is not None:
            told |= {"state": WAITS_FOR_USER, "requires_action": call}
    return _json(told)


@router.post("/{job_id}/approve", status_code=202, responses=DECIDED)
async def approve(job_id: UUID, user: CostingUser, found: Found) -> Response:
    """Let the call be made that waits for your approval."""
    return await _decide(job_id, "approved", user, found)


@router.post("/{job_id}/reject", status_code=202, responses=DECIDED)
async def reject(job_id: UUID, user: CostingUser, found: Found) -> Response:
    """Do not let it be made; the agent goes on without it."""
    return await _decide(job_id, "rejected", user, found)


async def _decide(job_id: UUID, said: Literal["approved", "rejected"], user: UserUpdated, found: Services) -> Response:
    view = await view_of(job_id, user, found, kinds=KINDS)
    found.submissions.count(user)
    step = await found.agents.steps.decide(job_id, said, by=user.user_id) if view["status"] == "pending" else None
    if step is None:
        raise Problem(409, "no-action-required", "no call of this run waits for approval: GET /agents/{job_id} tells")
    return Response(
        orjson.dumps({"job_id": str(job_id), "step": step, "approval": said}), 202, media_type="application/json"
    )  # fmt: skip


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body), 200, media_type="application/json")
