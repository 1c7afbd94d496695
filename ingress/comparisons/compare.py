"""Comparing providers and settings on the same prompts."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID, uuid4

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import Field, model_validator

from ingress.access.standings import check_quarantine
from ingress.comparisons.compare_report import FORMATS, POLICY
from ingress.comparisons.compare_table import Prices, cell_view, progress, summary
from ingress.comparisons.comparing import CANCELLED
from ingress.http.paced import PacedResponse
from ingress.http.problems import Problem, not_found
from ingress.jobs import seen_by
from ingress.services import CostingUser, CurrentUser, Found, Services
from ingress.submitting.idempotency import REPLAYED, Key
from schemas.events import UserUpdated
from schemas.generation import GenerationConfig
from schemas.request_fields import Prompt, ProviderName, RequestBody, Text
from schemas.requests import ChatRequest
from sinks.comparison_rows import Comparison, Grid, KeyReusedError, TooManyComparisonsError

router = APIRouter(tags=["compare"])
MAX_CELLS, MAX_VARIANTS = 1000, 100
LIFETIME = timedelta(hours=24)
SHOWN_CHARS = 500  # of each text, where all cells are shown at once
CELLS_AT_ONCE = 10  # in a report: a text may have 200,000 characters
EXAMPLE = {
    "comparison_id": "...", "status": "running", "progress": {"cells": 4, "completed": 1, "running": 2, "waiting": 1},
    "waits_for": {"code": "rate-limited", "until": "2026-01-02T03:05:00Z"}, "variants": ["..."], "cells": ["..."],
}  # fmt: skip
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "How far it is, and what there is of the table",
          "content": {"application/json": {"example": EXAMPLE}}},
}  # fmt: skip
REPORTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The table, each text in full", "content": {
        "application/json": {}, "text/csv": {}, "text/html": {}}},
    429: {"description": "Rate limit, or as many exports as are allowed at once are under way; see Retry-After"},
}  # fmt: skip


class Variant(RequestBody):
    """What is different: a provider, how it generates, or both."""

    provider: ProviderName | None = None
    generation_config: GenerationConfig = GenerationConfig()


class CompareBody(RequestBody):
    """Body of `POST /compare`: every prompt is asked in every variant, at most 1,000 cells."""

    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=MAX_CELLS)]
    variants: Annotated[list[Variant], Field(min_length=1, max_length=MAX_VARIANTS)]
    instruction: Annotated[Text | None, Field(max_length=5000, description="For every cell")] = None
    timeout: Annotated[float | None, Field(strict=True, ge=1, le=120, description="Of each cell")] = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        cells = len(self.prompts) * len(self.variants)
        if cells > MAX_CELLS:
            raise ValueError(f"prompts times variants are {cells} cells: at most {MAX_CELLS} are run")
        grid = self.grid()
        for variant in grid.variants:  # what fits by itself must fit together, too
            ChatRequest.model_validate({**grid.shared, **variant, "prompt": "?"})
        return self

    def grid(self) -> Grid:
        """The same as it is stored: each cell is a `ChatRequest` of its parts."""
        shared = self.model_dump(include={"instruction", "timeout"}, exclude_none=True)
        variants = [variant.model_dump(mode="json", exclude_none=True) for variant in self.variants]
        return Grid(self.prompts, variants, shared)


@router.post("/compare", status_code=202, responses={429: {"description": "As many are under way as may be"}})
async def compare(body: CompareBody, user: CostingUser, found: Found, key: Key) -> Response:
    """Run a grid of prompts and variants as ordinary jobs, under your rate limit; look at `Location` for the table."""
    if found.submissions.draining:
        raise Problem(503, "not-accepted", "this replica is stopping; try again", headers={"Retry-After": "2"})
    check_quarantine(user)
    found.submissions.count(user)
    for variant in body.variants:
        found.submissions.asked.check_named((variant.provider,) if variant.provider else (), variant.generation_config)
    grid = body.grid()
    try:
        comparison_id, is_new = await found.comparisons.create(
            uuid4(), user.user_id, grid, limit=found.compare_rules.per_user, lifetime=LIFETIME,
            key=key.key if key else None, fingerprint=key.fingerprint if key else None,
        )  # fmt: skip
    except TooManyComparisonsError as error:
        raise Problem(429, error.code, error.message, headers={"Retry-After": "30"}, retry_after_s=30) from None
    except KeyReusedError as error:
        raise Problem(422, error.code, error.message) from None
    found.comparing.look()
    headers = {"Location": f"/compare/{comparison_id}", **({} if is_new else REPLAYED)}
    return _json(202, {"comparison_id": str(comparison_id), "cells": grid.cells}, headers)


@router.get("/compare/{comparison_id}", responses=RESPONSES)
async def look(
    comparison_id: UUID,
    user: CurrentUser,
    found: Found,
    cells: Annotated[bool, Query(description="The table too, of each text the beginning")] = True,
) -> Response:
    """How far it is, each variant's figures, and the table as it is by now."""
    comparison = await _own(comparison_id, user, found)
    all_cells = await found.comparisons.cells(comparison, text_chars=SHOWN_CHARS + 1 if cells else 0)
    prices = found.compare_rules.prices
    view = _head(comparison, summary(comparison, all_cells, prices))
    view["progress"] = progress(view["variants"], all_cells)
    if cells:
        count = len(comparison.variants)
        view["cells"] = [cell_view(cell, count, prices, text_chars=SHOWN_CHARS) for cell in all_cells]
    return _json(200, view)


@router.get("/compare/{comparison_id}/report", response_class=Response, responses=REPORTS)
async def report(
    comparison_id: UUID,
    user: CostingUser,
    found: Found,
    format: Literal["json", "csv", "html"] = "json",  # noqa: A002 the parameter's name
) -> Response:
    """The whole table, also before the end: as JSON, as CSV, or as a page with a chart that needs no network."""
    comparison = await _own(comparison_id, user, found)
    found.submissions.count(user)
    prices, exports = found.compare_rules.prices, found.exports
    head = _head(comparison, summary(comparison, await found.comparisons.cells(comparison), prices))
    media_type, write = FORMATS[format]
    exports.begin(user.user_id)
    return PacedResponse(
        write(head, comparison.prompts, _rows(found, comparison, prices)), media_type=media_type,
        headers={
            "content-disposition": f'inline; filename="comparison-{comparison_id}.{format}"',
            "content-security-policy": f"{POLICY}; frame-ancestors 'none'; sandbox",
        },
        stall_s=exports.stall_s, longest_s=exports.longest_s, is_stopping=lambda: found.submissions.draining,
        at_the_end=lambda: exports.end(user.user_id),
    )  # fmt: skip


@router.post("/compare/{comparison_id}/cancel", status_code=202, responses={200: {"description": "It has ended"}})
async def cancel(comparison_id: UUID, user: CurrentUser, found: Found) -> Response:
    """Ask nothing more and cancel the jobs that are at work; may be asked again."""
    comparison = await _own(comparison_id, user, found)
    if comparison.state != "running":
        status = "cancelled" if comparison.state == "cancelled" else "already-finished"
        return _json(200, {"comparison_id": str(comparison_id), "status": status})
    at_work = await found.comparisons.cancel(comparison_id, CANCELLED)
    await found.comparing.cancel(at_work, comparison.user_id)
    return _json(202, {"comparison_id": str(comparison_id), "status": "cancelling"})


async def _own(comparison_id: UUID, user: UserUpdated, found: Services) -> Comparison:
    comparison = await found.comparisons.get(comparison_id, of=seen_by(user))
    if comparison is None:
        raise not_found()
    return comparison


def _head(comparison: Comparison, variants: Sequence[dict[str, Any]]) -> dict[str, Any]:
    view: dict[str, Any] = {
        "comparison_id": str(comparison.comparison_id),
        "status": "cancelling" if comparison.is_cancelled and comparison.state == "running" else comparison.state,
        "created_at": _iso(comparison.created_at),
        "finished_at": _iso(comparison.finished_at) if comparison.finished_at else None,
        "waits_for": {"code": comparison.waits_for, "until": _iso(comparison.not_before)}
        if comparison.not_before and comparison.state == "running"
        else None,
        "variants": variants,
    }
    return {name: value for name, value in view.items() if value is not None}


async def _rows(found: Services, comparison: Comparison, prices: Prices) -> AsyncIterator[list[dict[str, Any]]]:
    after, count = -1, len(comparison.variants)
    while True:
        cells = await found.comparisons.cells(comparison, after=after, limit=CELLS_AT_ONCE, text_chars=10_000_000)
        if not cells:
            return
        yield [cell_view(cell, count, prices) for cell in cells]
        after = cells[-1].cell


def _iso(at: Any) -> str:
    return str(at.isoformat()).replace("+00:00", "Z")


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")
