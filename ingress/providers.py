"""What can be asked: providers with their models, what they can do, and whether they are well."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from ingress.http.problems import Problem
from ingress.services import CurrentUser, Found, Services
from schemas.events import ProviderOffer
from transport.workers import offered_providers

router = APIRouter(tags=["providers"])
LMSTUDIO = "lmstudio"
BREAKERS = ("open", "half-open")
EXAMPLE = {
    "items": [{
        "name": "openai", "models": ["gpt-4o-mini", "gpt-4o"], "default_model": "gpt-4o-mini", "stream": True,
        "images": True, "embeddings": True, "parameters": ["max_tokens", "seed", "temperature"], "health": "ok",
        "breaker": "closed", "checked_at": "2026-01-02T03:04:05Z", "workers": 2,
    }],
    "next": None,
}  # fmt: skip


@router.get("/providers", responses={200: {"content": {"application/json": {"example": EXAMPLE}}}})
async def providers(_: CurrentUser, found: Found) -> dict[str, Any]:
    """The providers that a live worker has the key or address of; health is asked once a minute.

    `breaker`: the worst of the workers' own: `open` is asked for no answers for a while, `half-open` by one job only.
    """
    items = [_told(name, offers) for name, offers in _allowed(found).items()]
    return {"items": items, "next": None}


@router.get("/lmstudio/models/", responses={400: {"description": "There is no LM Studio; the ones present are listed"}})
async def lmstudio_models(_: CurrentUser, found: Found) -> dict[str, Any]:
    """The models of LM Studio, as it lists them itself."""
    offered = _allowed(found)
    if LMSTUDIO not in offered:
        there = list(offered)
        detail = f"the provider {LMSTUDIO} is not present; present are: {', '.join(there) or 'none'}"
        raise Problem(400, "no-such-provider", detail, providers=there)
    models = _models(offered[LMSTUDIO])
    return {"object": "list", "data": [{"id": model, "object": "model"} for model in models]}


def _allowed(found: Services) -> dict[str, list[ProviderOffer]]:
    return {
        name: offers
        for name, offers in offered_providers(found.workers).items()
        if found.submissions.asked.allows(name)
    }


def _told(name: str, offers: Sequence[ProviderOffer]) -> dict[str, Any]:
    """One answer for all workers: it is well where one of them says so that looked at it."""
    newest = offers[0]
    looked = [offer.healthy for offer in offers if offer.healthy is not None]
    told: dict[str, Any] = {
        "name": name,
        "models": _models(offers),
        "default_model": newest.default_model,
        "stream": "stream" in newest.can,
        "images": "images" in newest.can,
        "embeddings": "embeddings" in newest.can,
        "parameters": list(newest.parameters),
        "health": ("ok" if any(looked) else "failing") if looked else "unknown",
        "breaker": next((state for state in BREAKERS if any(offer.breaker == state for offer in offers)), "closed"),
        "checked_at": newest.checked_at,
        "workers": len(offers),
    }
    if told["health"] == "failing":
        told["code"] = newest.code
    return told


def _models(offers: Sequence[ProviderOffer]) -> list[str]:
    return list(dict.fromkeys(model for offer in offers for model in offer.models))
