"""The network as a picture: by Graphviz where it is installed, else laid out here, in layers, as a simple SVG."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from minicnn.look.graph import Box

BLUE, RED, GREEN, GREY = "#cfe0f5", "#f7d9c4", "#d8ecd0", "#eeeeee"
COLOURS = {
    **dict.fromkeys(("conv2d", "conv_relu", "linear"), BLUE),
    **dict.fromkeys(("max_pool", "avg_pool", "global_avg_pool"), RED),
    **dict.fromkeys(("concat", "add"), GREEN),
}
LETTER, LINE = 6.6, 14  # pixels that a letter is wide, a line high
BOX, ROW, GAP, LANE = 36, 64, 18, 14  # a box's height, from row to row, between boxes, the width of a lane


def draw(boxes: Sequence[Box]) -> str:
    """A picture of the network as SVG text: Graphviz's, or ours where there is no `dot` or it fails."""
    program = shutil.which("dot")
    if program:
        try:
            done = subprocess.run(
                [program, "-Tsvg"], input=dot(boxes), capture_output=True, encoding="utf-8", timeout=120, check=True
            )
            return done.stdout
        except (subprocess.SubprocessError, OSError):
            pass  # ours needs nobody
    return svg(boxes)


def dot(boxes: Sequence[Box]) -> str:
    """The network in Graphviz's language."""
    lines = ["digraph network {", 'node [shape=box, style=filled, fontname="sans-serif", fontsize=10];']
    for i, box in enumerate(boxes):
        label = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in _text(box))
        lines.append(f'{i} [label="{label}", fillcolor="{COLOURS.get(box.op, GREY)}"];')
        lines += [f"{parent} -> {i};" for parent in box.parents]
    return "\n".join([*lines, "}", ""])


def _text(box: Box) -> tuple[str, str]:
    return box.name, f"{box.op} {'×'.join(map(str, box.shape))}".strip()


# ---- Our own layout ------------------------------------------------------------------------------------------------
#
# A box stands in the row below its lowest parent. An arrow that skips rows gets a lane in each of them, so that it
# goes around the boxes there. In a row, boxes and lanes stand below what leads to them, pushed apart where they meet.


class Stop(NamedTuple):
    """What an arrow leads to in one row: a box, or a lane on the way to one."""

    box: int | None  # None is a lane
    sources: tuple[int, ...]  # the stops that lead here
    width: float


def svg(boxes: Sequence[Box]) -> str:
    """The network as an SVG of boxes and arrows from top to bottom; each box says its name, its op and its shape."""
    stops, rows = _stops(boxes)
    centres = _centres(stops, rows)
    left = min(centre - stop.width / 2 for centre, stop in zip(centres, stops, strict=True)) - GAP
    right = max(centre + stop.width / 2 for centre, stop in zip(centres, stops, strict=True)) + GAP
    height = ROW * (len(rows) - 1) + BOX + 2 * GAP
    arrows: list[str] = []
    drawn: list[str] = []
    for y, row in enumerate(rows):
        for number in row:
            stop, x = stops[number], centres[number] - left
            top = y * ROW + GAP
            if stop.box is None:
                arrows.append(f'<path d="M{x:.1f} {top}V{top + BOX}"/>')
            for source in stop.sources:
                x0, above, middle = centres[source] - left, top + BOX - ROW, top - (ROW - BOX) / 2
                arrows.append(f'<path d="M{x0:.1f} {above}C{x0:.1f} {middle} {x:.1f} {middle} {x:.1f} {top}"/>')
            if stop.box is not None:
                drawn.append(_drawn(boxes[stop.box], x, top, stop.width))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{right - left:.0f}" height="{height}" '
            f'viewBox="0 0 {right - left:.0f} {height}" font-family="sans-serif" font-size="11" text-anchor="middle">',
            '<g fill="none" stroke="#666666">',
            *arrows,
            "</g>",
            *drawn,
            "</svg>",
            "",
        ]
    )


def _drawn(box: Box, x: float, top: int, width: float) -> str:
    name, what = map(escape, _text(box))
    return (
        f'<rect x="{x - width / 2:.1f}" y="{top}" width="{width:.1f}" height="{BOX}" rx="3" '
        f'fill="{COLOURS.get(box.op, GREY)}" stroke="#666666"/>'
        f'<text x="{x:.1f}" y="{top + LINE}">{name}</text>'
        f'<text x="{x:.1f}" y="{top + 2 * LINE}">{what}</text>'
    )


def _stops(boxes: Sequence[Box]) -> tuple[list[Stop], list[list[int]]]:
    """Every box and lane, and which of them stand in each row."""
    stops: list[Stop] = []
    rows: list[list[int]] = []
    row_of: list[int] = []  # of each box
    ways: list[list[int]] = []  # for each box, the stop that continues its arrows: in its row, the next, …

    def stop(row: int, box: int | None, sources: tuple[int, ...], width: float) -> int:
        if row == len(rows):
            rows.append([])
        rows[row].append(len(stops))
        stops.append(Stop(box, sources, width))
        return len(stops) - 1

    for i, box in enumerate(boxes):
        row = 1 + max((row_of[parent] for parent in box.parents), default=-1)
        sources = []
        for parent in dict.fromkeys(box.parents):
            way = ways[parent]
            while row_of[parent] + len(way) < row:  # lanes, which several arrows from one box share
                way.append(stop(row_of[parent] + len(way), None, (way[-1],), LANE))
            sources.append(way[row - row_of[parent] - 1])
        width = LETTER * max(map(len, _text(box))) + GAP
        row_of.append(row)
        ways.append([stop(row, i, tuple(sources), width)])
    return stops, rows


def _centres(stops: Sequence[Stop], rows: Sequence[Sequence[int]]) -> list[float]:
    """Where each stop stands in its row, in pixels from where the first box stands."""
    centres = [0.0] * len(stops)
    for row in rows:
        wanted = {n: _mean([centres[source] for source in stops[n].sources]) for n in row}
        order = sorted(row, key=lambda n: wanted[n])  # stable: branches keep the order in which they ran
        end = -float("inf")
        for n in order:
            centres[n] = max(wanted[n], end + GAP + stops[n].width / 2)
            end = centres[n] + stops[n].width / 2
        pushed = _mean([centres[n] - wanted[n] for n in row])
        for n in row:
            centres[n] -= pushed
    return centres


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
