"""Pages and pictures are well formed, whatever they show."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest

from minicnn.study import chart, page
from minicnn.study.page import Bullets, Code, Heading, Picture, Table, Text

LINES = {
    "a & b": chart.Line([1, 2, 3], [0.5, 0.25, 0.125], [0.4, 0.2, 0.0], [0.6, 0.3, 0.2]),
    "one point": chart.Line([2], [0.3]),
    "empty": chart.Line([], []),
}


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("series", [LINES, {"flat": chart.Line([1, 2], [7.0, 7.0])}, {"zero": chart.Line([1], [0.0])}])
def test_lines_are_a_picture(series, log):
    root = ElementTree.fromstring(chart.lines(series, "title", "x", "y", log=log))
    words = "".join(root.itertext())
    drawn = [name for name, line in series.items() if line.x and (line.y[0] or not log)]
    assert "title" in words and all(name in words for name in drawn)


def test_larger_values_are_drawn_higher_and_further_right():
    root = ElementTree.fromstring(chart.lines({"a": chart.Line([1, 2], [1, 9])}, "", "", ""))
    (line,) = root.iter("{http://www.w3.org/2000/svg}polyline")
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in line.get("points").split())
    assert x1 < x2 and y1 > y2


def test_an_interval_without_end_has_no_mark():
    svg = chart.intervals(
        [("a", 1.0, 0.5, 1.5, 0.0, math.inf), ("b", 1.0, -math.inf, math.inf, 0.0, 2.0)], "t", "points"
    )
    ElementTree.fromstring(svg)
    assert svg.count('stroke="#1f6fb4"') == 1 + 2 + 1


def test_ticks_are_few_and_round():
    for low, high in ((0, 1), (-3.2, 17), (99.1, 99.4), (0, 12345)):
        ticks = chart.Axis(low, high, 0, 100).ticks()
        assert 2 <= len(ticks) <= 7 and all(low <= tick <= high for tick in ticks)


BLOCKS = [
    Heading("Title", 1),
    Text("**bold** and `a < b` and [other](02-other.md)"),
    Bullets(["one", "two"]),
    Table(("a", "b"), [("x|y", "1")]),
    Picture("p.svg", '<svg xmlns="http://www.w3.org/2000/svg"/>', "a picture"),
    Picture("q.png", b"\x89PNG", "another"),
    Code("python -m x"),
]


def test_markdown():
    text = page.markdown(BLOCKS)
    assert text.startswith("# Title\n\n**bold**") and "- one\n- two" in text
    assert "| a | b |\n| :-- | --: |\n| x\\|y | 1 |" in text and "![a picture](p.svg)" in text


def test_html_is_well_formed_and_complete():
    text = page.html("T", BLOCKS)
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))
    assert root.find(".//b").text == "bold" and root.find(".//p/code").text == "a < b"
    assert root.find(".//a").get("href") == "02-other.html"
    assert root.find(".//img").get("src").startswith("data:image/png;base64,")
