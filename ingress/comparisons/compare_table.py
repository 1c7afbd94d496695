"""What a comparison shows: its cells, and for each variant latencies, tokens and cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Literal

from sinks.comparison_rows import Cell, Comparison

Prices = Mapping[str, Mapping[Literal["input", "output"], float]]
COST_DIGITS = 9


@dataclass(frozen=True, slots=True)
class CompareRules:
    """What is allowed, and what a million tokens cost, by `provider/model` or by provider."""

    per_user: int
    prices: Prices


@dataclass
class VariantSum:
    """Of one variant's cells."""

    statuses: dict[str, int] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)
    totals_ms: list[float] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=lambda: {"prompt_tokens": 0, "completion_tokens": 0})
    costs: list[float] = field(default_factory=list)


def status_of(cell: Cell) -> str:
    """`waiting`, `running`, `completed`, `refused`, `fallback`, `error`, `cancelled`, or `deleted` with its job."""
    if cell.state == "waiting":
        return "waiting"
    if cell.state != "ended":
        return "running"
    if cell.status == "completed":
        return cell.said or "completed"
    if cell.error is None:
        return "deleted"
    return "cancelled" if cell.error.get("code") == "cancelled" else "error"


def cost_of(cell: Cell, prices: Prices) -> float | None:
    """By the prices of its provider and model, else of its provider; None where there are none, or no usage."""
    price = prices.get(f"{cell.provider}/{cell.model}") or prices.get(cell.provider or "")
    if price is None or not cell.usage:
        return None
    read, written = cell.usage.get("prompt_tokens") or 0, cell.usage.get("completion_tokens") or 0
    return round((read * price.get("input", 0.0) + written * price.get("output", 0.0)) / 1e6, COST_DIGITS)


def cell_view(cell: Cell, variants: int, prices: Prices, *, text_chars: int | None = None) -> dict[str, Any]:
    """One cell; nothing empty. `text_chars`: of its text only so many."""
    error = {name: cell.error[name] for name in ("code", "message") if name in cell.error} if cell.error else None
    is_cut = cell.text is not None and text_chars is not None and len(cell.text) > text_chars
    view: dict[str, Any] = {
        "prompt": cell.cell // variants,
        "variant": cell.cell % variants,
        "status": status_of(cell),
        "job_id": str(cell.job_id) if cell.job_id else None,
        "provider": cell.provider,
        "model": cell.model,
        "text": cell.text[:text_chars] if cell.text is not None else None,
        "is_cut": is_cut or None,
        "finish_reason": cell.finish_reason,
        "usage": cell.usage,
        "latency_ms": cell.latency_ms if cell.status == "completed" else None,
        "total_ms": round(cell.total_ms, 1) if cell.total_ms is not None and cell.status == "completed" else None,
        "cost": cost_of(cell, prices),
        "error": error if cell.status != "completed" else None,
        "rate_limited": cell.rate_limited or None,
    }
    return {name: value for name, value in view.items() if value is not None}


def summary(comparison: Comparison, cells: Iterable[Cell], prices: Prices) -> list[dict[str, Any]]:
    """Each variant with its figures; latencies are of answers, the provider's call alone and from end to end."""
    count = len(comparison.variants)
    sums = [VariantSum() for _ in range(count)]
    for cell in cells:
        of = sums[cell.cell % count]
        status = status_of(cell)
        of.statuses[status] = of.statuses.get(status, 0) + 1
        if status != "completed":
            continue
        if cell.latency_ms is not None:
            of.latencies_ms.append(cell.latency_ms)
        if cell.total_ms is not None:
            of.totals_ms.append(cell.total_ms)
        for name in of.tokens:
            of.tokens[name] += (cell.usage or {}).get(name) or 0
        if (cost := cost_of(cell, prices)) is not None:
            of.costs.append(cost)
    return [
        {
            "variant": number, **variant, "cells": of.statuses, "latency_ms": _percentiles(of.latencies_ms),
            "total_ms": _percentiles(of.totals_ms), "usage": of.tokens,
            "cost": round(sum(of.costs), COST_DIGITS) if of.costs else None,
        }
        for number, (variant, of) in enumerate(zip(comparison.variants, sums, strict=True))
    ]  # fmt: skip


def progress(variants: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> dict[str, int]:
    """How many cells stand how."""
    statuses: dict[str, int] = {"cells": len(cells), "rate_limited": sum(cell.rate_limited for cell in cells)}
    for variant in variants:
        for status, count in variant["cells"].items():
            statuses[status] = statuses.get(status, 0) + count
    return statuses


def _percentiles(times: list[float]) -> dict[str, float] | None:
    """By nearest rank."""
    if not times:
        return None
    ordered = sorted(times)
    return {f"p{part}": round(ordered[ceil(len(ordered) * part / 100) - 1], 1) for part in (50, 95)}
