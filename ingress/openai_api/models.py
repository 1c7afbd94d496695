"""`GET /v1/models`: the models that can be asked, as OpenAI's clients list them."""

from typing import Any

import orjson
from fastapi import APIRouter, Response

from ingress.http.problems import not_found
from ingress.openai_api.model_names import Model
from ingress.services import CurrentUser, Found

router = APIRouter(tags=["openai"])

EXAMPLE = {
    "object": "list",
    "data": [
        {"id": "openai/gpt-4o-mini", "object": "model", "created": 0, "owned_by": "openai"},
        {"id": "gpt-4o-mini", "object": "model", "created": 0, "owned_by": "openai"},
    ],
}


@router.get("/v1/models", responses={200: {"content": {"application/json": {"example": EXAMPLE}}}})
async def models(_: CurrentUser, found: Found) -> Response:
    """The models that can be asked, each as `provider/model` and, where it is the only one of its name, as `model`."""
    listed = [_told(name, model) for name, model in found.models().by_id.items()]
    return Response(orjson.dumps({"object": "list", "data": listed}), media_type="application/json")


@router.get(
    "/v1/models/{model:path}", responses={200: {"content": {"application/json": {"example": EXAMPLE["data"][0]}}}}
)
async def model(model: str, _: CurrentUser, found: Found) -> Response:
    """One of them."""
    known = found.models().by_id.get(model)
    if known is None:
        raise not_found()
    return Response(orjson.dumps(_told(model, known)), media_type="application/json")


def _told(name: str, model: Model) -> dict[str, Any]:
    """As OpenAI does; when a model was made is not known here."""
    return {"id": name, "object": "model", "created": 0, "owned_by": model.provider}
