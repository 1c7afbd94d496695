"""What a comparison shows: figures, and reports in which nothing that a model has written can do anything."""

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import pytest

from ingress.comparisons.compare_report import COLUMNS, FORMATS, as_csv, as_html, as_json, chart
from ingress.comparisons.compare_table import Prices, cell_view, cost_of, progress, status_of, summary
from sinks.comparison_rows import Cell, Comparison

PRICES: Prices = {"openai/mini": {"input": 1.0, "output": 10.0}, "local": {"output": 2.0}}
EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\"'&<svg onload=alert(1)>"


def cell(number: int = 0, **overrides: Any) -> Cell:
    fields: dict[str, Any] = {
        "cell": number, "state": "ended", "job_id": UUID(int=number), "rate_limited": 0, "error": None,
        "status": "completed", "said": None, "model": "mini", "provider": "openai",
        "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}, "finish_reason": "stop",
        "latency_ms": 10.0, "total_ms": 20.0, "text": "Because.",
    }  # fmt: skip
    return Cell(**fields | overrides)


def failed(number: int = 0, code: str = "timeout", **more: Any) -> Cell:
    empty = dict.fromkeys(("model", "provider", "usage", "finish_reason", "text"))
    return cell(number, status="error", error={"code": code, "message": "no"}, **empty, **more)


def comparison(prompts: list[str], variants: list[dict[str, Any]]) -> Comparison:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    return Comparison(UUID(int=7), "alice", "completed", prompts, variants, {}, at, at, False, None, None)


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        (cell(state="waiting", status=None), "waiting"), (cell(state="published", status=None), "running"),
        (cell(state="accepted", status="pending"), "running"), (cell(state="accepted"), "running"),
        (cell(), "completed"), (cell(said="refused"), "refused"), (cell(said="fallback"), "fallback"),
        (failed(), "error"), (failed(code="cancelled"), "cancelled"), (cell(status=None, error=None), "deleted"),
        (cell(status=None, job_id=None, error={"code": "cancelled", "message": "m"}), "cancelled"),
    ],
)  # fmt: skip
def test_a_cell_says_how_it_stands(shown: Cell, status: str) -> None:
    assert status_of(shown) == status
    assert cell_view(shown, 1, PRICES)["status"] == status


def test_cost_is_by_model_else_by_provider_and_only_where_there_is_a_price() -> None:
    assert cost_of(cell(), PRICES) == pytest.approx((100 * 1 + 50 * 10) / 1e6)
    assert cost_of(cell(provider="local", model="any"), PRICES) == pytest.approx(50 * 2 / 1e6)
    assert cost_of(cell(model="other"), PRICES) is None
    assert cost_of(cell(usage=None), PRICES) is None
    assert cost_of(failed(), PRICES) is None
    assert cost_of(cell(provider="local", usage={"completion_tokens": None}), PRICES) == 0


def test_a_text_is_cut_where_there_is_more_of_it() -> None:
    assert cell_view(cell(text="abc"), 1, {}, text_chars=2) | {"text": "ab", "is_cut": True} == cell_view(
        cell(text="abc"), 1, {}, text_chars=2
    )
    assert "is_cut" not in cell_view(cell(text="ab"), 1, {}, text_chars=2)
    assert cell_view(cell(text="abc"), 1, {})["text"] == "abc"


def test_figures_are_of_answers_by_nearest_rank() -> None:
    variants: list[dict[str, Any]] = [{"provider": "openai"}, {"provider": "local"}]
    cells = [cell(2 * n, latency_ms=float(n + 1), total_ms=float(n + 1)) for n in range(100)]
    cells += [failed(1), cell(3, state="waiting", status=None, rate_limited=2), cell(5, said="refused", latency_ms=9.0)]
    first, second = summary(comparison(["p"] * 100, variants), cells, PRICES)
    assert first["latency_ms"] == first["total_ms"] == {"p50": 50.0, "p95": 95.0}
    assert first["cells"] == {"completed": 100}
    assert first["usage"] == {"prompt_tokens": 10_000, "completion_tokens": 5_000}
    assert first["cost"] == pytest.approx(0.06)
    assert (second["latency_ms"], second["cost"]) == (None, None)
    assert second["cells"] == {"error": 1, "waiting": 1, "refused": 1}
    assert progress([first, second], cells) == {
        "cells": 103, "rate_limited": 2, "completed": 100, "error": 1, "waiting": 1, "refused": 1
    }  # fmt: skip
    (three,) = summary(comparison(["p"] * 3, [{}]), [cell(n, latency_ms=float(n)) for n in range(3)], {})
    assert three["latency_ms"] == {"p50": 1.0, "p95": 2.0}
    (alone,) = summary(comparison(["p"], [{}]), [cell(latency_ms=3.0)], {})
    assert alone["latency_ms"] == {"p50": 3.0, "p95": 3.0}


class Report:
    """Two prompts in two variants, written in pages of one."""

    def __init__(self, text: str = EVIL, prompt: str = EVIL) -> None:
        variants: list[dict[str, Any]] = [
            {"provider": "openai", "generation_config": {"temperature": 0.2}},
            {"generation_config": {"stop": [EVIL]}},
        ]  # fmt: skip
        self.prompts = [prompt, "second"]
        self.cells = [cell(0, text=text), failed(1), cell(2, text="plain"), cell(3, state="waiting", status=None)]
        shown = comparison(self.prompts, variants)
        self.head = {
            "comparison_id": "7", "status": "completed", "created_at": "2026-01-02T00:00:00Z",
            "variants": summary(shown, self.cells, PRICES),
        }  # fmt: skip

    async def rows(self) -> AsyncIterator[Sequence[dict[str, Any]]]:
        for one in self.cells:
            yield [cell_view(one, 2, PRICES)]

    async def written(self, write: Callable[..., AsyncIterator[bytes]]) -> str:
        return b"".join([chunk async for chunk in write(self.head, self.prompts, self.rows())]).decode()


async def test_json_has_all_of_it() -> None:
    report = Report()
    found = json.loads(await report.written(as_json))
    assert found["prompts"] == report.prompts
    assert [one["status"] for one in found["cells"]] == ["completed", "error", "completed", "waiting"]
    assert found["cells"][0]["text"] == EVIL
    assert found["variants"] == report.head["variants"]
    report.cells = []
    assert json.loads(await report.written(as_json))["cells"] == []


async def test_csv_has_a_line_per_cell_and_no_formulas() -> None:
    for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "  =1"):
        lines = list(csv.DictReader(io.StringIO(await Report(text, text).written(as_csv), newline="")))
        assert len(lines) == 4
        assert list(lines[0]) == list(COLUMNS)
        assert lines[0]["text"] == lines[0]["prompt_text"] == f"'{text}"
    lines = list(csv.DictReader(io.StringIO(await Report('a\nb,"c"').written(as_csv), newline="")))
    assert lines[0]["text"] == 'a\nb,"c"'
    assert (lines[0]["prompt_tokens"], lines[0]["cost"], lines[1]["error"]) == ("100", "0.0006", "timeout")
    assert json.loads(lines[0]["generation_config"]) == {"temperature": 0.2}


class Tags(HTMLParser):
    """What a browser would see. `text`: all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_html_has_a_chart_and_no_script_and_what_models_wrote_is_only_text() -> None:
    tags = Tags()
    tags.feed(await Report().written(as_html))
    assert not tags.tags & {"script", "img", "iframe", "link", "a", "object", "form", "base"}
    assert {"svg", "rect", "table"} <= tags.tags
    assert not [name for name in tags.attributes if name.startswith("on") or name in ("href", "src")]
    assert tags.text.count(EVIL) == 2  # as a prompt and as an answer
    assert tags.text.count("<script>alert(1)</script>") > 4  # and in a variant's settings
    assert "timeout: no" in tags.text
    harmless = Tags()
    harmless.feed(await Report("plain", "plain").written(as_html))
    assert tags.tags == harmless.tags


def test_a_chart_is_well_formed_and_its_bars_are_to_scale() -> None:
    variants: Sequence[Mapping[str, Any]] = [
        {"variant": 0, "provider": EVIL, "latency_ms": {"p50": 50.0, "p95": 100.0}},
        {"variant": 1, "latency_ms": None},
        {"variant": 2, "latency_ms": {"p50": 0.0, "p95": 25.0}},
    ]
    drawn = ElementTree.fromstring(chart(variants).partition("</h2>")[2])
    widths = [float(rect.attrib["width"]) for rect in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    assert [width / max(widths) for width in widths] == [0.5, 1.0, 0.0, 0.25]
    assert chart([{"variant": 0, "latency_ms": None}]) == ""
    assert chart([{"variant": 0, "latency_ms": {"p50": 0.0, "p95": 0.0}}])


def test_every_format_says_what_it_is() -> None:
    assert {name: media for name, (media, _) in FORMATS.items()} == {
        "json": "application/json", "csv": "text/csv; charset=utf-8", "html": "text/html; charset=utf-8"
    }  # fmt: skip
