"""Sending webhooks again: all of a time in which a receiver was away. (One job's are in `jobs.py`.)"""

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Response
from pydantic import AwareDatetime, Field

from ingress.http.problems import Problem
from ingress.services import TOO_MANY, CostingUser, Found
from schemas.request_fields import RequestBody, UserId

router = APIRouter(tags=["webhooks"])
MAX_AT_ONCE = 1_000


class RedeliverBody(RequestBody):
    """Body of `POST /webhooks/redeliver`: those stored from then on and before then; `user_id` is for admins."""

    begin: AwareDatetime = Field(alias="from")
    end: AwareDatetime = Field(alias="to")
    state: Literal["due", "delivered", "given-up"] | None = None
    user_id: UserId | None = None
    cursor: Annotated[str, Field(max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_AT_ONCE)] = MAX_AT_ONCE


@router.post("/webhooks/redeliver", status_code=202, responses={429: TOO_MANY})
async def redeliver_all(body: RedeliverBody, user: CostingUser, found: Found) -> Response:
    """Send all own ones of a time again (an admin's: everybody's), at most 1,000 a call; go on with `next`."""
    whose = body.user_id if user.role == "admin" else user.user_id
    if body.user_id not in (None, whose):
        raise Problem(403, "not-allowed", "only admins may name a user")
    found.submissions.count(user)
    after = _decode_cursor(body.cursor) if body.cursor else None
    sent = await found.webhooks.send_all_again(
        begin=body.begin, end=body.end, user_id=whose, state=body.state, limit=body.limit, after=after
    )  # fmt: skip
    items = [{"job_id": str(job_id), "webhook_id": webhook_id} for job_id, webhook_id, _ in sent]
    return _json({"items": items, "next": _encode_cursor(*sent[-1][1:]) if len(sent) == body.limit else None})


def _encode_cursor(webhook_id: str, at: datetime) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([at.astimezone(UTC).isoformat(), webhook_id])).decode().rstrip("=")


def _decode_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        at, webhook_id = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return datetime.fromisoformat(at).astimezone(UTC), str(webhook_id)
    except (ValueError, TypeError, OverflowError, binascii.Error):
        detail = "the cursor is not one that a call before gave: leave it out to begin anew"
        raise Problem(400, "invalid-cursor", detail) from None


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body), 202, media_type="application/json")
