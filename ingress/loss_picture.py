"""A loss curve as a picture: an SVG that needs nothing else and runs nothing."""

from collections.abc import Sequence
from html import escape

from sinks.adapters import AdapterRow

# Opened by itself it is a document of our origin: nothing in it may run or be fetched.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 360, 64, 20, 44, 44
LINES = 5
NOTHING = {
    "training": "nothing was told yet",
    "ready": "this provider tells no losses",
}


def loss_picture(row: AdapterRow) -> str:
    """The curve of an adapter over its steps, and the losses on the examples held out, where these are known."""
    title = f"{row.name} ({row.provider}, {row.status}): loss by step"
    points = [(int(point["step"]), float(point["loss"])) for point in row.losses]
    held_out = (
        (row.held_out_loss_before, "held out, before", "#b9532f"),
        (row.held_out_loss_after, "held out, after", "#3b8a4d"),
    )
    levels = [(loss, name, colour) for loss, name, colour in held_out if loss is not None]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}"><title>{escape(title)}</title>'
        "<style>text{font:12px system-ui,sans-serif;fill:#222}</style>"
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/><text x="{LEFT}" y="22">{escape(title)}</text>'
    ]
    if points or levels:
        parts += _drawn(points, levels)
    else:
        told = NOTHING.get(row.status, "no losses are known")
        parts.append(f'<text x="{LEFT}" y="{HEIGHT // 2}">{told}</text>')
    return "".join([*parts, "</svg>\n"])


def _drawn(points: Sequence[tuple[int, float]], levels: Sequence[tuple[float, str, str]]) -> list[str]:
    losses = [loss for _, loss in points] + [loss for loss, _, _ in levels]
    low, high = min(0.0, *losses), max(losses)
    span, last = (high - low) or 1.0, max((step for step, _ in points), default=1)

    def x(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (step - 1) / max(1, last - 1), 1)

    def y(loss: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / span, 1)

    drawn = []
    for line in range(LINES):
        loss = low + span * line / (LINES - 1)
        drawn.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(loss)}" y2="{y(loss)}" stroke="#ddd"/>'
            f'<text x="{LEFT - 8}" y="{y(loss) + 4}" text-anchor="end">{loss:.3g}</text>'
        )
    for loss, name, colour in levels:
        drawn.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(loss)}" y2="{y(loss)}" stroke="{colour}" '
            f'stroke-dasharray="6 4"/><text x="{WIDTH - RIGHT}" y="{y(loss) - 4}" text-anchor="end">'
            f"{name}: {loss:.3g}</text>"
        )
    if points:
        path = " ".join(f"{x(step)},{y(loss)}" for step, loss in points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="#4a7fc1" stroke-width="2"/>')
        if len(points) == 1:
            drawn.append(f'<circle cx="{x(points[0][0])}" cy="{y(points[0][1])}" r="3" fill="#4a7fc1"/>')
    base = HEIGHT - BOTTOM + 20
    drawn.append(f'<text x="{LEFT}" y="{base}">step 1</text>')
    drawn.append(f'<text x="{WIDTH - RIGHT}" y="{base}" text-anchor="end">step {last}</text>')
    return drawn
