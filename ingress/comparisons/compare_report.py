"""A comparison as JSON, CSV or HTML, cell after cell: never more of it in memory than a few."""

import csv
import io
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from html import escape
from typing import Any

import orjson

Rows = AsyncIterator[Sequence[dict[str, Any]]]
# Without scripts, and with a policy that lets none run: what stands in it was written by models.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
COLUMNS = (
    "prompt", "variant", "provider", "model", "generation_config", "status", "text", "finish_reason", "prompt_tokens",
    "completion_tokens", "latency_ms", "total_ms", "cost", "error", "rate_limited", "job_id", "prompt_text",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run
BAR_HEIGHT, BAR_WIDTH, LABEL_WIDTH = 14, 560, 240
STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse;margin:1em 0;width:100%}
th,td{border:1px solid #ddd;padding:.3em .6em;vertical-align:top;text-align:left}th{background:#f4f4f4}
td.n{text-align:right;white-space:nowrap}pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font:inherit}
tr.p th{background:#eef3fb;font-weight:normal}.e{color:#a00}svg text{font:12px system-ui,sans-serif}
"""


async def as_json(head: Mapping[str, Any], prompts: Sequence[str], rows: Rows) -> AsyncIterator[bytes]:
    """`{..., prompts, cells: [...]}`."""
    yield orjson.dumps({**head, "prompts": prompts})[:-1] + b',"cells":['
    between = b""
    async for cells in rows:
        for cell in cells:
            yield between + orjson.dumps(cell)
            between = b",\n"
    yield b"]}\n"


async def as_csv(head: Mapping[str, Any], prompts: Sequence[str], rows: Rows) -> AsyncIterator[bytes]:
    """A line per cell. A text that a spreadsheet would run as a formula has a ' in front."""
    yield _csv(COLUMNS)
    variants = head["variants"]
    async for cells in rows:
        for cell in cells:
            usage, variant = cell.get("usage") or {}, variants[cell["variant"]]
            known = {
                **cell, **usage, "provider": cell.get("provider") or variant.get("provider"),
                "generation_config": orjson.dumps(variant.get("generation_config") or {}).decode(),
                "error": (cell.get("error") or {}).get("code"), "prompt_text": prompts[cell["prompt"]],
            }  # fmt: skip
            yield _csv([_harmless(known.get(name)) for name in COLUMNS])


async def as_html(head: Mapping[str, Any], prompts: Sequence[str], rows: Rows) -> AsyncIterator[bytes]:
    """A page that needs nothing else: figures, a chart, every cell."""
    variants: Sequence[Mapping[str, Any]] = head["variants"]
    name, size = _text(head["comparison_id"]), f"{len(prompts)} prompts × {len(variants)} variants"
    yield (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>Comparison {name}</title>'
        f"<style>{STYLE}</style></head><body><h1>Comparison</h1>"
        f"<p>{name} · {_text(head['status'])} · {_text(head['created_at'])} · {size}</p>"
        f"{_figures(variants)}{chart(variants)}<table><thead><tr><th>variant</th><th>status</th><th>text</th>"
        f"<th>tokens</th><th>ms</th><th>cost</th></tr></thead><tbody>"
    ).encode()
    shown = -1
    async for cells in rows:
        for cell in cells:
            title = ""
            if cell["prompt"] != shown:
                shown = cell["prompt"]
                title = f'<tr class="p"><th colspan="6"><pre>{_text(prompts[shown])}</pre></th></tr>'
            yield (title + _row(cell, variants)).encode()
    yield b"</tbody></table></body></html>\n"


FORMATS: dict[str, tuple[str, Callable[[Mapping[str, Any], Sequence[str], Rows], AsyncIterator[bytes]]]] = {
    "json": ("application/json", as_json),
    "csv": ("text/csv; charset=utf-8", as_csv),
    "html": ("text/html; charset=utf-8", as_html),
}


def label(variant: Mapping[str, Any]) -> str:
    """A variant in a few words."""
    settings = variant.get("generation_config") or {}
    return " ".join([variant.get("provider") or "default", *(f"{name}={value}" for name, value in settings.items())])


def chart(variants: Sequence[Mapping[str, Any]]) -> str:
    """Bars of each variant's latencies; nothing where there are none yet."""
    timed = [variant for variant in variants if variant["latency_ms"]]
    if not timed:
        return ""
    longest = max(max(variant["latency_ms"].values()) for variant in timed) or 1.0
    bars, top = [], 20
    for variant in timed:
        for part, colour in (("p50", "#4a7fc1"), ("p95", "#b9cfea")):
            ms = variant["latency_ms"][part]
            width, middle = round(BAR_WIDTH * ms / longest, 1), top + BAR_HEIGHT - 3
            name = _text(f"{variant['variant']}: {label(variant)}"[:40]) if part == "p50" else ""
            bars.append(
                f'<text x="0" y="{middle}">{name}</text><rect x="{LABEL_WIDTH}" y="{top}" width="{width}" '
                f'height="{BAR_HEIGHT}" fill="{colour}"/><text x="{LABEL_WIDTH + width + 6}" y="{middle}">'
                f"{part} {ms:,.0f} ms</text>"
            )
            top += BAR_HEIGHT + 2
        top += 8
    whole = LABEL_WIDTH + BAR_WIDTH + 120
    return (
        f'<h2>Latency of the provider</h2><svg xmlns="http://www.w3.org/2000/svg" role="img" width="{whole}" '
        f'height="{top}" viewBox="0 0 {whole} {top}"><title>Latency by variant</title>{"".join(bars)}</svg>'
    )


def _figures(variants: Sequence[Mapping[str, Any]]) -> str:
    titles = ("variant", "cells", "provider p50 / p95, ms", "end to end p50 / p95, ms", "tokens in / out", "cost")
    lines = []
    for variant in variants:
        usage = variant["usage"]
        cells = ", ".join(f"{count} {status}" for status, count in variant["cells"].items())
        values = (
            f"{variant['variant']}: {label(variant)}", cells, _pair(variant["latency_ms"]), _pair(variant["total_ms"]),
            f"{usage['prompt_tokens']} / {usage['completion_tokens']}", variant.get("cost"),
        )  # fmt: skip
        lines.append("<tr>" + "".join(f"<td>{_text(value)}</td>" for value in values) + "</tr>")
    head = "".join(f"<th>{_text(title)}</th>" for title in titles)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _row(cell: Mapping[str, Any], variants: Sequence[Mapping[str, Any]]) -> str:
    usage, error = cell.get("usage") or {}, cell.get("error") or {}
    text = cell.get("text") or (f"{error['code']}: {error.get('message', '')}" if error else "")
    tokens = f"{usage.get('prompt_tokens', '')} / {usage.get('completion_tokens', '')}" if usage else ""
    wrong = ' class="e"' if error else ""
    return (
        f"<tr><td>{_text(label(variants[cell['variant']]))}</td><td{wrong}>{_text(cell['status'])}</td>"
        f'<td{wrong}><pre>{_text(text)}</pre></td><td class="n">{_text(tokens)}</td>'
        f'<td class="n">{_text(cell.get("latency_ms"))}</td><td class="n">{_text(cell.get("cost"))}</td></tr>'
    )


def _pair(times: Mapping[str, float] | None) -> str:
    return f"{times['p50']:,.0f} / {times['p95']:,.0f}" if times else ""


def _text(value: Any) -> str:
    return "" if value is None else escape(str(value))


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(FORMULA) else value


def _csv(values: Sequence[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue().encode()
