"""`POST /chat/smart/run`: one answer where that is enough, and an agent where it is not."""

from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from ingress.chat import JOBS, as_job
from ingress.http.described import described_body
from ingress.services import CostingUser, Found
from ingress.submitting.idempotency import Key, Keyed, fingerprint
from schemas.generation import GenerationConfig
from schemas.request_fields import CallbackUrl, Prompt, ProviderName, RequestBody, Timeout
from schemas.requests import AgentId, SmartRequest

router = APIRouter()
B = TypeVar("B", bound=RequestBody)
MAX_CONFIG_CHARS = 25_000


class SmartBody(RequestBody):
    """Body of `POST /chat/smart/run`; what it leaves out may stand in the query. `query` stands in one of them."""

    query: Prompt | None = None
    provider: ProviderName | None = None
    generation_config: GenerationConfig | None = None
    agent_id: AgentId | None = None
    timeout: Timeout | None = None
    callback_url: CallbackUrl | None = None


@router.post(
    "/chat/smart/run", tags=["chat"], status_code=202, responses=JOBS,
    openapi_extra=described_body(SmartBody, is_required=False),
)  # fmt: skip
async def smart(
    user: CostingUser,
    found: Found,
    request: Request,
    key: Key,
    query: Annotated[str | None, Query(description="What is asked; or in the body")] = None,
    provider: Annotated[str | None, Query(max_length=32)] = None,
    generation_config: Annotated[str | None, Query(max_length=MAX_CONFIG_CHARS, description="JSON")] = None,
    agent_id: Annotated[str | None, Query(max_length=128)] = None,
) -> Response:
    """Ask; whether one answer is enough (SIMPLE) or an agent is needed (COMPLEX) is decided here.

    The outcome's `meta.decision` says which, why, and by whom: rules, or a model where they could not tell. What
    stands in the body wins over what stands in the query.
    """
    body = await _body(request)
    given: dict[str, Any] = {"query": query, "provider": provider, "agent_id": agent_id}
    if generation_config is not None:
        try:
            given["generation_config"] = orjson.loads(generation_config)
        except orjson.JSONDecodeError:
            raise RequestValidationError([_wrong("generation_config", "must be JSON")]) from None
    if body is not None:
        given |= {name: getattr(body, name) for name in SmartRequest.model_fields if getattr(body, name) is not None}
    asked = {name: value for name, value in given.items() if value is not None}
    wanted = _validated(SmartRequest, asked)
    keyed = Keyed(key.key, _fingerprint(key, given)) if key is not None else None
    callback_url = body.callback_url if body is not None else None
    return as_job(*await found.submissions.accepted(user, wanted, callback_url=callback_url, keyed=keyed))


async def _body(request: Request) -> SmartBody | None:
    """What was sent as JSON; None where nothing was."""
    raw = await request.body()
    if not raw:
        return None
    try:
        return _validated(SmartBody, orjson.loads(raw))
    except orjson.JSONDecodeError:
        raise RequestValidationError([_wrong("body", "must be JSON")]) from None


def _validated(kind: type[B], given: Any) -> B:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False, include_url=False)) from None


def _fingerprint(key: Keyed, given: dict[str, Any]) -> bytes:
    """Of all that was said, for half of it may stand in the query."""
    in_query = orjson.dumps({name: str(value) for name, value in given.items()}, option=orjson.OPT_SORT_KEYS)
    return fingerprint("POST", "/chat/smart/run", key.fingerprint + in_query)


def _wrong(name: str, message: str) -> dict[str, Any]:
    return {"type": "value_error", "loc": (name,), "msg": message, "input": None}
