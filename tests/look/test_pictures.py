"""Pictures: tiles, colours, bars, the drawn network, the page."""

from __future__ import annotations

import base64
import io
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from minicnn import models
from minicnn.look import drawing, network_graph, render
from minicnn.look.graph import Box
from minicnn.look.page import Figure, Section, html
from minicnn.look.parts import _square_around
from tests import device

SVG = "{http://www.w3.org/2000/svg}"


def test_tiles_stand_in_rows_with_gaps_of_paper():
    images = [np.full((3, 4, 3), 10 * i, np.uint8) for i in range(5)]
    sheet = render.tiles(images, columns=3, gap=2)
    assert sheet.shape == (2 * 3 + 3 * 2, 3 * 4 + 4 * 2, 3)
    for i, image in enumerate(images):
        top, left = 2 + (i // 3) * 5, 2 + (i % 3) * 6
        assert np.array_equal(sheet[top : top + 3, left : left + 4], image)
    assert (sheet[7:10, 14:18] == 255).all()  # the sixth place is empty
    assert (sheet[:2] == 255).all() and (sheet[:, 6:8] == 255).all()


def test_zero_is_grey_and_the_largest_number_as_far_from_it_as_can_be():
    a = np.zeros((2, 2, 3))
    a[0, 0], a[1, 1] = [4, 0, -2], [-4, 2, 0]
    picture = render.signed(a)
    assert picture[0, 0].tolist() == [255, 128, 64] and picture[1, 1].tolist() == [0, 191, 128]
    assert picture[0, 1].tolist() == [128] * 3
    assert (render.signed(np.zeros((2, 2, 3))) == 128).all()
    assert render.signed(np.full((1, 1, 2), 3.0)).tolist() == [[[255] * 3]]  # the mean of two channels, in grey


def test_brightness_goes_from_black_to_white():
    assert render.brightness(np.array([[2.0, 4.0], [3.0, 2.0]]))[..., 0].tolist() == [[0, 255], [128, 0]]
    assert not render.brightness(np.full((2, 2), 7.0)).any()


def test_heat_gets_brighter():
    colours = render.heat(np.linspace(0, 1, 50)[None])[0].astype(int).sum(axis=1)
    assert (np.diff(colours) >= 0).all() and colours[0] < 100 and colours[-1] > 600


def test_heat_lies_where_the_map_says():
    image = np.full((64, 64, 3), 100, np.uint8)
    cells = np.zeros((4, 4))
    cells[1, 2] = 1
    brightness = render.over(image, cells).sum(axis=2)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    assert 16 <= row < 32 and 32 <= column < 48
    assert len(np.unique(render.over(image, np.zeros((4, 4))).reshape(-1, 3), axis=0)) == 1


def test_enlarged_and_fitted_pictures_have_square_pixels():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(render.enlarged(image, 9)[::4, ::4], image) and render.enlarged(image, 9).shape == (8, 8, 3)
    assert np.array_equal(render.enlarged(image, 1), image)
    assert np.array_equal(render.fitted(image, 6)[[0, 3]][:, [2, 5]], image)


def test_bars_are_as_long_as_their_values():
    sheet = render.bars(["one", "two", "none"], {"a": [1.0, 0.5, 0.0], "b": [0.25, 1.0, 0.0]}, width=200)
    longest = [0, 0]
    for i, colour in enumerate(render.SERIES[:2]):
        runs = (sheet[30:] == colour).all(axis=2).sum(axis=1)  # below the legend
        longest[i] = sorted(set(runs[runs > 1].tolist()))
    assert longest == [[101, 201], [51, 201]]


def test_a_png_holds_the_picture():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(render.png(image)))), image)


def test_the_place_of_a_pattern_is_the_square_around_what_is_visible():
    strength = np.zeros((10, 12))
    strength[2:4, 9:12] = 1
    strength[8, 1] = 0.01  # too faint
    assert _square_around(strength) == (slice(1, 4), slice(9, 12))
    assert _square_around(np.zeros((3, 3))) == (slice(0, 3), slice(0, 3))


# The network as a picture

BRANCHES = [
    Box("image", "", (8, 8, 3), ()),
    Box("a<b>&", "conv2d", (8, 8, 4), (0,)),
    Box("long", "conv2d", (8, 8, 4), (1,)),
    Box("sum", "add", (8, 8, 4), (2, 0)),  # a shortcut from the image
    Box("other", "conv2d", (8, 8, 4), (0,)),
    Box("join", "concat", (8, 8, 8), (3, 4)),
]


def boxes_of(svg):
    return [{k: float(rect.get(k)) for k in ("x", "y", "width", "height")} for rect in svg.iter(f"{SVG}rect")]


def test_the_drawn_network_is_xml_with_every_box():
    svg = ET.fromstring(drawing.svg(BRANCHES))
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert [texts.count(box.name) for box in BRANCHES] == [1] * 6
    assert "conv2d 8×8×4" in texts
    width, height = float(svg.get("width")), float(svg.get("height"))
    for box in boxes_of(svg):
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        assert box["y"] >= 0 and box["y"] + box["height"] <= height


@pytest.mark.parametrize("name", ["branches", "googlenet"])
def test_drawn_boxes_do_not_overlap_and_stand_below_their_parents(name):
    boxes = BRANCHES
    if name == "googlenet":
        model = models.build("googlenet", 5, 3, 32).to(device=device.name)
        boxes = network_graph(model, device.there(np.zeros((1, 32, 32, 3), np.float32)))
    svg = ET.fromstring(drawing.svg(boxes))
    rects = boxes_of(svg)
    names = [text.text for text in svg.iter(f"{SVG}text")][::2]
    place = dict(zip(names, rects, strict=True))
    assert len(place) == len(boxes)
    for box in boxes:
        for parent in box.parents:
            assert place[boxes[parent].name]["y"] < place[box.name]["y"]
    for i, a in enumerate(rects):
        for b in rects[:i]:
            assert a["y"] != b["y"] or a["x"] + a["width"] < b["x"] or b["x"] + b["width"] < a["x"]


def test_an_arrow_goes_around_the_boxes_that_it_skips():
    svg = ET.fromstring(drawing.svg(BRANCHES))
    lanes = [path.get("d") for path in svg.iter(f"{SVG}path") if "C" not in path.get("d")]
    assert len(lanes) == 4  # image -> sum skips two rows, other -> join skips two
    for lane in lanes:
        x, top = map(float, lane[1:].partition("V")[0].split())
        assert not any(box["y"] == top and box["x"] <= x <= box["x"] + box["width"] for box in boxes_of(svg))


def test_graphviz_gets_every_box_and_arrow():
    text = drawing.dot(BRANCHES)
    assert text.count("->") == 7 and "2 -> 3;" in text and "0 -> 3;" in text
    assert text.count("label=") == 6 and 'label="join\\nconcat 8×8×8"' in text


def test_without_graphviz_the_network_is_drawn_here(monkeypatch, tmp_path):
    monkeypatch.setattr(drawing.shutil, "which", lambda name: None)
    assert drawing.draw(BRANCHES) == drawing.svg(BRANCHES)
    broken = tmp_path / "dot"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(drawing.shutil, "which", lambda name: str(broken))
    assert drawing.draw(BRANCHES) == drawing.svg(BRANCHES)


def test_with_graphviz_the_network_is_what_it_draws(monkeypatch, tmp_path):
    program = tmp_path / "dot"
    program.write_text('#!/bin/sh\necho "<svg>$1"\ncat\necho "</svg>"\n')
    program.chmod(0o755)
    monkeypatch.setattr(drawing.shutil, "which", lambda name: str(program))
    assert drawing.draw(BRANCHES) == f"<svg>-Tsvg\n{drawing.dot(BRANCHES)}</svg>\n"


def test_the_graph_of_a_residual_network_has_its_shortcuts():
    model = models.build("resnet-mini", 5, 3, 16).to(device=device.name)
    boxes = network_graph(model, device.there(np.zeros((1, 16, 16, 3), np.float32)))
    number = {box.name: i for i, box in enumerate(boxes)}
    assert boxes[0] == Box("image", "", (16, 16, 3), ()) and boxes[number["conv1"]].parents == (0,)
    assert set(boxes[number["layer1.0.bn2"]].parents) == {number["layer1.0.conv2"], number["maxpool"]}
    assert boxes[number["layer2.0.downsample.0"]].parents == (number["layer1.0.bn2"],)
    assert boxes[-1] == Box("fc", "linear", (5,), (number["avgpool"],))


# The page


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.sources, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name == "src"]
        self.links += [value for name, value in attributes if name in ("href", "srcset", "data", "action")]


def test_the_page_needs_nothing_else():
    png, svg = render.png(np.zeros((2, 2, 3), np.uint8)), drawing.svg(BRANCHES).encode()
    section = Section(
        "A & B",
        "How <to> read\n\n    a = b\n    c\n\nend",
        [Figure("a.png", png, 'cap "tion"'), Figure("b.svg", svg, "<x>")],
    )
    text = html("Inside", {"network": "<resnet>"}, [section])
    page = Reader()
    page.feed(text)
    kinds, contents = zip(*(source.split(";base64,") for source in page.sources), strict=True)
    assert kinds == ("data:image/png", "data:image/svg+xml")
    assert [base64.b64decode(content) for content in contents] == [png, svg]
    assert page.links == [] and not {"script", "link", "iframe"} & set(page.tags)
    assert "A &amp; B" in text and "&lt;resnet&gt;" in text and "url(" not in text
    assert '<p class="how">How &lt;to&gt; read</p>\n<pre>    a = b\n    c</pre>\n<p class="how">end</p>' in text
