"""Pictures for a page, written as SVG: lines with bands, and differences with their intervals. Nothing to install."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 40, 48  # margins; the names of the lines stand on the right
COLOURS = ("#1f6fb4", "#d9622b", "#2f9e57", "#8a56b8", "#b0892c", "#c2417c", "#3aa6a6", "#6b6b6b")
STROKES = ("", "6 3", "2 3", "8 3 2 3")  # when the colours are used up
LABEL_HEIGHT = 16


class Line(NamedTuple):
    """Points, and where they have a spread, its lower and upper ends."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def through(points: Sequence[tuple[float, float]]) -> Line:
    """The line through (x, y) points."""
    return Line(*zip(*points, strict=True))


class Axis(NamedTuple):
    """From values to pixels, along a straight or a logarithmic scale."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._scaled(self.low), self._scaled(self.high)
        return self.start + (self._scaled(value) - low) / (high - low) * (self.end - self.start)

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value

    def ticks(self) -> list[float]:
        """About five round numbers; powers of ten on a logarithmic scale."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            step = max(1, -(-(last - first) // 6))
            return [10.0**i for i in range(first, last + 1, step)]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 5))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= 6)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def lines(series: Mapping[str, Line], title: str, x_label: str, y_label: str, *, log: bool = False) -> str:
    """A line through the points of each series, with a band from low to high, and its name where it ends."""
    series = {name: _positive(line) for name, line in series.items()} if log else series
    xs = [x for line in series.values() for x in line.x]
    ys = [y for line in series.values() for values in (line.y, line.low, line.high) for y in values]
    x_axis = Axis(*_range(xs), LEFT, WIDTH - RIGHT)
    y_axis = Axis(*_range(ys, log), HEIGHT - BOTTOM, TOP, log)
    parts = [*_frame(title, x_label, y_label, x_axis, y_axis)]
    ends = []
    for i, (name, line) in enumerate(series.items()):
        colour, dash = COLOURS[i % len(COLOURS)], STROKES[i // len(COLOURS) % len(STROKES)]
        if line.low and line.high:
            upper, lower = _path(x_axis, y_axis, line.x, line.high), _path(x_axis, y_axis, line.x, line.low)
            around = " ".join([*upper, *reversed(lower)])
            parts.append(f'<polygon points="{around}" fill="{colour}" fill-opacity="0.15"/>')
        points = _path(x_axis, y_axis, line.x, line.y)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.8"{dashed}/>'
        )
        if len(points) <= 30:
            parts += [_dot(x_axis(x), y_axis(y), colour) for x, y in zip(line.x, line.y, strict=True)]
        if points:
            ends.append((float(points[-1].split(",")[1]), name, colour))
    for y, name, colour in _spread(sorted(ends)):
        parts.append(_text(WIDTH - RIGHT + 10, y + 4, name, "start", colour))
    return _svg(HEIGHT, parts)


def intervals(rows: Sequence[tuple[str, float, float, float, float, float]], title: str, x_label: str) -> str:
    """A row for each (name, mean, low, high, above, below): the interval, and shaded the region that is claimed."""
    height = TOP + BOTTOM + 34 * len(rows)
    finite = [v for _, mean, low, high, above, below in rows for v in (mean, low, high, above, below, 0.0)]
    span = _range([value for value in finite if math.isfinite(value)])
    axis = Axis(*span, 300, WIDTH - 24)
    parts = [_text(300, 22, title, "start", weight="bold")]
    for tick in axis.ticks():
        x = axis(tick)
        parts.append(f'<path d="M{x:.1f},{TOP} V{height - BOTTOM}" stroke="#ddd"/>')
        parts.append(_text(x, height - BOTTOM + 18, _number(tick), "middle"))
    parts.append(_text((axis.start + axis.end) / 2, height - 10, x_label, "middle"))
    for i, (name, mean, low, high, above, below) in enumerate(rows):
        y = TOP + 34 * i + 17
        left, right = (axis(min(max(v, axis.low), axis.high)) for v in (above, below))
        parts.append(
            f'<rect x="{left:.1f}" y="{y - 13}" width="{right - left:.1f}" height="26" fill="#2f9e57" '
            'fill-opacity="0.12"/>'
        )
        parts.append(_text(290, y + 4, name if len(name) < 46 else name[:44] + "…", "end"))
        ends = [axis(min(max(v, axis.low), axis.high)) for v in (low, high)]
        parts.append(f'<path d="M{ends[0]:.1f},{y} H{ends[1]:.1f}" stroke="#1f6fb4" stroke-width="2"/>')
        for value, x in zip((low, high), ends, strict=True):
            if math.isfinite(value):  # an end that is not marked goes on beyond the picture
                parts.append(f'<path d="M{x:.1f},{y - 5} V{y + 5}" stroke="#1f6fb4" stroke-width="2"/>')
        parts.append(_dot(axis(mean), y, "#1f6fb4", 4))
    return _svg(height, parts)


def _frame(title: str, x_label: str, y_label: str, x_axis: Axis, y_axis: Axis) -> list[str]:
    left, right, top, bottom = x_axis.start, x_axis.end, y_axis.end, y_axis.start
    parts = [_text(left, 22, title, "start", weight="bold")]
    for tick in y_axis.ticks():
        y = y_axis(tick)
        parts.append(f'<path d="M{left},{y:.1f} H{right}" stroke="#e4e4e4"/>')
        parts.append(_text(left - 6, y + 4, _number(tick), "end"))
    for tick in x_axis.ticks():
        parts.append(_text(x_axis(tick), bottom + 18, _number(tick), "middle"))
    parts.append(f'<path d="M{left},{top} V{bottom} H{right}" fill="none" stroke="#888"/>')
    parts.append(_text((left + right) / 2, HEIGHT - 10, x_label, "middle"))
    middle = (top + bottom) / 2
    parts.append(f'<g transform="rotate(-90 14 {middle})">{_text(14, middle, y_label, "middle")}</g>')
    return parts


def _positive(line: Line) -> Line:
    """Without the points that a logarithmic scale cannot show."""
    kept = [i for i, y in enumerate(line.y) if y > 0 and math.isfinite(y)]
    x, y, low, high = ([values[i] for i in kept] if values else [] for values in line)
    return Line(x, y, [max(a, b / 10) for a, b in zip(low, y, strict=bool(low))] if low else [], high)


def _range(values: Sequence[float], log: bool = False) -> tuple[float, float]:
    if not values:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(values), max(values)
    if log:
        return (low / 1.2, high * 1.2)
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _path(x_axis: Axis, y_axis: Axis, xs: Sequence[float], ys: Sequence[float]) -> list[str]:
    return [f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in zip(xs, ys, strict=True)]


def _spread(ends: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """The names moved apart, downwards, so that none lies upon another; up again where they leave the picture."""
    placed: list[tuple[float, str, str]] = []
    for y, name, colour in ends:
        lowest = placed[-1][0] + LABEL_HEIGHT if placed else -math.inf
        placed.append((max(y, lowest), name, colour))
    over = max(placed[-1][0] - (HEIGHT - BOTTOM), 0.0) if placed else 0.0
    return [(y - over, name, colour) for y, name, colour in placed]


def _number(value: float) -> str:
    return f"{value:.0e}" if value and (abs(value) < 1e-3 or abs(value) >= 1e6) else f"{value:.6g}"


def _dot(x: float, y: float, colour: str, radius: float = 2.4) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>'


def _text(x: float, y: float, content: str, anchor: str, colour: str = "#333", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}">'
        f"{escape(content)}</text>"
    )


def _svg(height: float, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif" '
    head += f'font-size="12"><rect width="{WIDTH}" height="{height:.0f}" fill="white"/>'
    return "\n".join([head, *parts, "</svg>"]) + "\n"
