"""Dead letters, for admins: what could never work, why, and again once the cause is mended."""

import base64
import json
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Query, Response
from pydantic import AwareDatetime, ConfigDict, Field

from ingress.http.problems import Problem, not_found
from ingress.publisher import NotAcceptedError
from ingress.redrive import MAX_PER_CALL
from ingress.services import Admin, Found
from schemas.dead_letter import MAX_INT
from schemas.request_fields import RequestBody
from sinks.dead_letters import DeadLetterRow, Filter
from sinks.postgres import MAX_PAGE, InvalidCursorError

router = APIRouter(prefix="/admin/dlq", tags=["dead letters"])

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
Cursor = Annotated[str, Field(max_length=200)]


class RedriveBody(RequestBody):
    """Body of `POST /admin/dlq/redrive`: all that is given must fit; nothing given is every dead letter."""

    model_config = ConfigDict(populate_by_name=True)

    job_id: UUID | None = None
    code: Word | None = None
    stage: Word | None = None
    since: Annotated[AwareDatetime | None, Field(alias="from")] = None
    to: AwareDatetime | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_PER_CALL)] = MAX_PER_CALL
    cursor: Cursor | None = None


@router.get("")
async def dead_letters(
    user: Admin,  # noqa: ARG001 an admin must ask
    found: Found,
    job_id: UUID | None = None,
    code: Word | None = None,
    stage: Word | None = None,
    since: Annotated[AwareDatetime | None, Query(alias="from")] = None,
    to: AwareDatetime | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    cursor: Cursor | None = None,
) -> Response:
    """Dead letters, newest first; `to` is exclusive, `next` is the cursor of the page after."""
    wanted = Filter(job_id=job_id, code=code, stage=stage, since=since, to=to)
    try:
        letters, after = await found.dead_letters.page(wanted, limit=found.limits.page(limit), cursor=cursor)
    except InvalidCursorError as error:
        raise Problem(400, error.code, error.message) from None
    return _json({"items": [_item(letter) for letter in letters], "next": after})


@router.get("/{partition}/{offset}")
async def dead_letter(
    partition: Annotated[int, Path(ge=0, le=MAX_INT)],
    offset: Annotated[int, Path(ge=0, lt=2**63)],
    user: Admin,  # noqa: ARG001 as above
    found: Found,
) -> Response:
    """One, with its record as it came: `value` where it is JSON, else `value_base64`."""
    letter = await found.dead_letters.get(partition, offset)
    if letter is None:
        raise not_found()
    headers = [{"name": name, "value": (raw or b"").decode(errors="replace")} for name, raw in letter.headers]
    key = (letter.key or b"").decode(errors="replace")
    return _json({**_item(letter), "key": key, "headers": headers, **_value(letter.value)})


@router.post("/redrive")
async def redrive(body: RedriveBody, user: Admin, found: Found) -> Response:  # noqa: ARG001 as above
    """Send them again to where they failed, as the next run of their jobs; oldest first, at most 1,000 a call.

    Skipped, with the reason: whose job has ended otherwise since, was redriven already, or cannot be told. `next` is
    the cursor for what this call did not come to.
    """
    wanted = Filter(job_id=body.job_id, code=body.code, stage=body.stage, since=body.since, to=body.to)
    try:
        report = await found.redriver.redrive(wanted, limit=body.limit, cursor=body.cursor)
    except InvalidCursorError as error:
        raise Problem(400, error.code, error.message) from None
    except NotAcceptedError as error:
        detail = f"{error}; nothing was redriven, try again"
        raise Problem(503, "not-accepted", detail, headers={"Retry-After": "2"}) from None
    return _json({
        "redriven": [{**_place(result.letter), "run": result.run} for result in report.redriven],
        "skipped": [{**_place(result.letter), "reason": result.reason} for result in report.skipped],
        "next": report.next,
    })  # fmt: skip


def _place(letter: DeadLetterRow) -> dict[str, Any]:
    place = {"partition": letter.partition, "offset": letter.offset}
    return place if letter.job_id is None else {"job_id": str(letter.job_id), **place}


def _item(letter: DeadLetterRow) -> dict[str, Any]:
    item = {
        "at": letter.at, "topic": letter.topic, "stage": letter.stage, "code": letter.code, "reason": letter.reason,
        "attempts": letter.attempts, "job_id": letter.job_id and str(letter.job_id), "user_id": letter.user_id,
        "run": letter.run, "outcome_id": letter.outcome_id, "redriven_at": letter.redriven_at,
        "redriven_run": letter.redriven_run, "partition": letter.partition, "offset": letter.offset,
    }  # fmt: skip
    return {name: value for name, value in item.items() if value is not None}


def _value(raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        return {}
    try:
        value = json.loads(raw)
        orjson.dumps(value)  # stricter: no integer over 64 bits, no lone surrogate, not too deep
    except (ValueError, TypeError, RecursionError):
        return {"value_base64": base64.b64encode(raw).decode()}
    return {"value": value}


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_UTC_Z), 200, media_type="application/json")
