"""Speech: `POST /tts/` waits and answers with a WAV file; `/tts/async` gives a job, whose audio is fetched later."""

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.responses import StreamingResponse

from ingress.access.credentials import Session
from ingress.chat import ANSWERS, JOBS, as_job, failed_call
from ingress.http.leaving import left
from ingress.http.problems import Problem, not_found, rate_limit_headers
from ingress.jobs import view_of
from ingress.services import CostingUser, CurrentUser, Found, Services, Token, services, session_of
from ingress.submitting.idempotency import REPLAYED, Key
from processors.route_job import NO_SUCH_PROVIDER, not_speaking
from processors.speech.speech_ports import Voices
from schemas.request_fields import CallbackUrl, ProviderName
from schemas.requests import SpeechRequest

router = APIRouter(tags=["speech"])

MEDIA_TYPE = "audio/wav"
PIECE_BYTES = 262_144  # of a file on its way out: nobody who reads slowly holds more of it in memory
WAV: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The WAV file, as a download",
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    },
}
SPOKEN: dict[int | str, dict[str, Any]] = {
    **{status: ANSWERS[status] for status in (413, 429, 502, 503, 504)},
    **WAV,
    400: {"description": "No such provider, speaker or language, those that there are are listed; or it is too long"},
}
NAMES = {"items": [{"name": "Vivian", "provider": "qwen-tts"}], "next": None}
AUDIO: dict[int | str, dict[str, Any]] = {
    **WAV,
    403: {"description": "The signed address has expired: GET /jobs/{job_id} has a new one"},
    409: {"description": "The job has not ended, or has no audio"},
    410: {"description": "The audio was deleted: it is kept for 15 days"},
}
LISTED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": NAMES}}},
    400: {"description": "This provider does not speak; those that do are listed"},
}


class AsyncSpeechRequest(SpeechRequest):
    """The same, with where to send the outcome."""

    callback_url: CallbackUrl | None = None


@router.post("/tts/", responses=SPOKEN, response_class=Response)
async def speak(body: SpeechRequest, user: CostingUser, found: Found, key: Key, request: Request) -> Response:
    """Have a text said, and wait for it; to close the connection is to cancel the job (not with an Idempotency-Key)."""
    leaving = partial(left, request) if key is None else None  # who has a key may come back for the same job
    job_id, outcome = await found.submissions.answered(user, found.speech.with_time(body), keyed=key, left=leaving)
    if outcome.status != "completed" or outcome.result is None:
        raise failed_call(job_id, outcome)
    headers = {"Location": f"/jobs/{job_id}", **rate_limit_headers(outcome.rate_limit)}
    headers |= REPLAYED if outcome.replayed else {}
    return await _file(job_id, outcome.result, found, owner=user.user_id, headers=headers)


@router.post("/tts/async", status_code=202, responses=JOBS)
async def speak_async(body: AsyncSpeechRequest, user: CostingUser, found: Found, key: Key) -> Response:
    """Have a text said, and get a job: the outcome by polling or at `callback_url`, then `GET /jobs/{job_id}/audio`."""
    names = SpeechRequest.model_fields
    asked = SpeechRequest.model_construct(
        body.model_fields_set & names.keys(), **{name: getattr(body, name) for name in names}
    )
    return as_job(*await found.submissions.accepted(user, asked, callback_url=body.callback_url, keyed=key))


async def listener(
    request: Request, token: Token,
    expires: Annotated[int | None, Query(ge=0, le=10**11, description="Of `audio_url`")] = None,
    signature: Annotated[str | None, Query(max_length=128, description="Of `audio_url`")] = None,
) -> Session | None:  # fmt: skip
    """Who wants to hear a job; None: whoever has an address of it that was signed here.

    Raises:
        Problem: The address has expired, or nobody has shown who they are.
    """
    if expires is not None and signature is not None:
        with contextlib.suppress(ValueError):
            job_id = UUID(request.path_params["job_id"])
            verdict = services(request).audio_links.verdict(job_id, expires, signature, now_s=time.time())
            if verdict == "good":
                return None
            if verdict == "expired":
                raise Problem(403, "link-expired", f"this address has expired: GET /jobs/{job_id} has a new one")
    return await session_of(request, token)


@router.get("/jobs/{job_id}/audio", responses=AUDIO, response_class=Response)
async def audio(job_id: UUID, found: Found, session: Annotated[Session | None, Depends(listener)]) -> Response:
    """What a job has said: for who may see the job, or by the `audio_url` of it, which is good for an hour."""
    if session is None:
        row = await found.jobs.get(job_id)
        owner = found.user_table.values.get(row.user_id) if row is not None else None
        if row is None or owner is None or owner.disabled:
            raise not_found()
        return await _file_of(job_id, row.view(), found, owner=row.user_id)
    view = await view_of(job_id, session.user, found)
    row = await found.jobs.get(job_id) if session.user.role == "admin" else None
    return await _file_of(job_id, view, found, owner=row.user_id if row is not None else session.user.user_id)


@router.get("/tts/speakers", responses=LISTED)
async def speakers(_: CurrentUser, found: Found, provider: ProviderName | None = None) -> dict[str, Any]:
    """Who speaks: what each provider says that it has, or this one."""
    return _listed(found, provider, lambda voices: voices.speakers)


@router.get("/tts/languages", responses=LISTED)
async def languages(_: CurrentUser, found: Found, provider: ProviderName | None = None) -> dict[str, Any]:
    """In which languages, in the same way."""
    return _listed(found, provider, lambda voices: voices.languages)


def _listed(found: Services, provider: str | None, names_of: Any) -> dict[str, Any]:
    there: dict[str, Voices] = found.speech.voices()
    if provider is not None and provider not in there:
        raise Problem(400, NO_SUCH_PROVIDER, not_speaking([provider], list(there)), providers=list(there))
    chosen: Sequence[str] = (provider,) if provider is not None else tuple(there)
    items = [{"name": name, "provider": one} for one in chosen for name in names_of(there[one])]
    return {"items": items, "next": None}


async def _file_of(job_id: UUID, view: dict[str, Any], found: Services, *, owner: str) -> Response:
    if view["status"] == "pending" and view["kind"] in ("speech", "chat"):  # chat: nobody knows its kind yet
        detail = "the job has not ended: ask again, or have it told by a webhook"
        raise Problem(409, "not-finished", detail, headers={"Retry-After": "2"})
    if view["status"] != "completed" or view["kind"] != "speech":
        detail = "this job has no audio: it has failed, or is of another kind; GET /jobs/{job_id} tells"
        raise Problem(409, "no-audio", detail)
    return await _file(job_id, view["result"], found, owner=owner, headers={})


async def _file(
    job_id: UUID, result: dict[str, Any], found: Services, *, owner: str, headers: dict[str, str]
) -> Response:
    """The file in pieces. Its name is made of the job's id, and of nothing that anybody sent."""
    payload_id = UUID(result["audio"]["payload_id"])
    facts = await found.payloads.facts(payload_id, user_id=owner)
    if facts is None or facts.media_type != MEDIA_TYPE:
        raise Problem(410, "audio-gone", "the audio was deleted: have the text said again", headers=headers)
    headers = {
        **headers, "content-length": str(facts.size),
        "content-disposition": f'attachment; filename="speech-{job_id}.wav"',
    }  # fmt: skip

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, facts.size, PIECE_BYTES):
            piece = await found.payloads.piece(payload_id, user_id=owner, begin=begin, length=PIECE_BYTES)
            if piece is None:
                return  # deleted meanwhile: whoever reads sees that it is cut
            yield piece

    return StreamingResponse(pieces(), 200, headers, MEDIA_TYPE)
