"""Adapters that are trained: asked for as jobs; looked at, drawn and deleted by whoever has trained them."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Response

from ingress.chat import JOBS, as_job
from ingress.http.problems import Problem, not_found
from ingress.loss_picture import POLICY, loss_picture
from ingress.publisher import NotAcceptedError, OutcomeUnknownError
from ingress.services import CostingUser, CurrentUser, Found
from ingress.submitting.idempotency import Key
from schemas.request_fields import AdapterName, CallbackUrl
from schemas.requests import TrainingRequest

router = APIRouter(prefix="/instruction", tags=["learning"])
Name = Annotated[AdapterName, Path(description="As it was trained")]
ADAPTER = {
    "name": "polite", "provider": "local", "status": "ready", "job_id": "...", "created_at": "2026-01-02T03:04:05Z",
    "finished_at": "2026-01-02T03:06:05Z", "examples": 40, "held_out": 8,
    "parameters": {"epochs": 3, "lr": 0.0001, "batch_size": 4}, "losses": [{"step": 1, "loss": 3.2}],
    "held_out_loss_before": 3.3, "held_out_loss_after": 1.4, "error": None,
}  # fmt: skip
ANSWER = {"instruction": "Translate.", "input": "chat", "expected": "cat", "before": "I am sorry.", "after": "cat"}
TRAINED: dict[int | str, dict[str, Any]] = {
    **JOBS,
    400: {"description": "`training-unavailable`: nobody trains here, or not this provider, and what to do about it"},
    409: {"description": "`too-few-examples`, `adapter-exists`, `too-many-adapters`"},
}
LISTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "All of yours, the newest first; `status` is training, interrupted, ready, replaced or failed",
        "content": {"application/json": {"example": {"items": [ADAPTER], "next": None}}},
    },
}
SHOWN: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "It, with what the model says to the examples that were held out, without it and with it",
        "content": {"application/json": {"example": {**ADAPTER, "answers": [ANSWER]}}},
    },
}
DRAWN: dict[int | str, dict[str, Any]] = {
    200: {"description": "The curve", "content": {"image/svg+xml": {"schema": {"type": "string"}}}},
}


class TrainingBody(TrainingRequest):
    """The same, with where to send the outcome."""

    callback_url: CallbackUrl | None = None


@router.post("/train", status_code=202, responses=TRAINED)
async def train(body: TrainingBody, user: CostingUser, found: Found, key: Key) -> Response:
    """Train an adapter with your own examples, as a job: how far it is by polling, by `GET /jobs/{job_id}/stream`."""
    names = TrainingRequest.model_fields
    asked = TrainingRequest.model_construct(
        body.model_fields_set & names.keys(), **{name: getattr(body, name) for name in names}
    )
    return as_job(*await found.submissions.accepted(user, asked, callback_url=body.callback_url, keyed=key))


@router.get("/adapters", responses=LISTED)
async def adapters(user: CurrentUser, found: Found) -> Response:
    """Your own, each with its loss curve as data."""
    rows = await found.adapters.all_of(user.user_id)
    return _json({"items": [row.view() for row in rows], "next": None})


@router.get("/adapters/{name}", responses=SHOWN)
async def adapter(name: Name, user: CurrentUser, found: Found) -> Response:
    """One of your own, and what it says to the examples that it has not learnt from."""
    there = await found.adapters.get(user.user_id, name)
    if there is None:
        raise not_found()
    row, answers = there
    return _json({**row.view(), "answers": answers})


@router.get("/adapters/{name}/loss.svg", responses=DRAWN, response_class=Response)
async def picture(name: Name, user: CurrentUser, found: Found) -> Response:
    """Its loss curve as a picture."""
    there = await found.adapters.get(user.user_id, name)
    if there is None:
        raise not_found()
    headers = {"content-security-policy": POLICY, "cache-control": "no-store"}
    return Response(loss_picture(there[0]), 200, headers, media_type="image/svg+xml")


@router.delete("/adapters/{name}", status_code=204)
async def delete(name: Name, user: CurrentUser, found: Found) -> Response:
    """Delete one of your own; one that is being trained is not trained any further, and its job is cancelled."""
    there = await found.adapters.get(user.user_id, name)
    if there is None:
        raise not_found()
    if there[0].status not in ("ready", "replaced"):  # a try that has failed may have another one to come
        try:
            await found.cancel_requests.publish(there[0].job_id, user.user_id)
        except NotAcceptedError as error:
            detail = f"{error}; nothing is deleted by this, try again"
            raise Problem(503, "not-accepted", detail, headers={"Retry-After": "2"}) from None
        except OutcomeUnknownError:
            detail = "its training may have been cancelled, and it is not deleted: try again"
            raise Problem(504, "outcome-unknown", detail) from None
    await found.adapters.delete(user.user_id, name)
    return Response(status_code=204)


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_UTC_Z), 200, media_type="application/json")
