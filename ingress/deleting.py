"""Deleting a job: what was asked and answered, and all that is only there for it."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from ingress.http.problems import Problem
from ingress.jobs import seen_by, view_of
from ingress.services import CurrentUser, Found

router = APIRouter()
RESPONSES: dict[int | str, dict[str, Any]] = {
    204: {"description": "It is deleted"},
    404: {"description": "There is no such job, it is somebody else's, or it was deleted already"},
    409: {"description": "It has not ended: cancel it first, with `POST /jobs/{job_id}/cancel`"},
}


@router.delete("/jobs/{job_id}", tags=["jobs"], status_code=204, responses=RESPONSES)
async def delete(job_id: UUID, user: CurrentUser, found: Found) -> Response:
    """Delete a job that has ended, with its answer, webhooks, images, audio and agent's steps; nothing brings it back.

    Topics forget it by their retention. Documents, examples and adapters that it has made stay: they have calls of
    their own. Its `Idempotency-Key` is free again.
    """
    if await found.deletion.delete(job_id, of=seen_by(user)) != "deleted":
        await view_of(job_id, user, found)
        detail = f"the job has not ended: cancel it with POST /jobs/{job_id}/cancel, and delete it then"
        raise Problem(409, "not-finished", detail, job_id=str(job_id))
    return Response(status_code=204)
