"""A small line chart as SVG, drawn by hand: enough for a training curve, and nothing to install."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 640, 320, 48
FONT = 'font-family="sans-serif" font-size="12"'
COLOURS = ("#1f6fb4", "#d9622b", "#2f9e57", "#8a56b8")


def svg(series: Mapping[str, Sequence[tuple[float, float]]], x_label: str) -> str:
    """Lines through the (x, y) points of each series, on axes that reach from the least to the greatest of all."""
    points = [point for line in series.values() for point in line]
    (x_low, x_high), (y_low, y_high) = (_range([point[i] for point in points]) for i in (0, 1))

    def place(x: float, y: float) -> str:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return f"{MARGIN + across * (WIDTH - 2 * MARGIN):.1f},{HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN):.1f}"

    left, right, top, bottom = MARGIN, WIDTH - MARGIN, MARGIN, HEIGHT - MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<path d="M{left},{top} V{bottom} H{right}" fill="none" stroke="#888"/>',
        _text(left - 6, bottom, f"{y_low:.4g}", "end"),
        _text(left - 6, top + 4, f"{y_high:.4g}", "end"),
        _text(left, bottom + 18, f"{x_low:.4g}", "middle"),
        _text(right, bottom + 18, f"{x_high:.4g}", "middle"),
        _text((left + right) / 2, bottom + 18, x_label, "middle"),
    ]
    for i, (name, line) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(place(x, y) for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(_text(left + 12 + 150 * i, top - 16, name, "start", colour))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _text(x: float, y: float, content: str, anchor: str, colour: str = "#333") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}">{escape(content)}</text>'
