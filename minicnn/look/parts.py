"""The parts of the page: each asks one question of a Subject and makes pictures of the answer."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minicnn import look
from minicnn.look import drawing, render
from minicnn.look.page import Figure, Section
from minicnn.look.subject import Subject

TILES = 64  # maps of a layer that are shown
UNITS = 9  # units of a layer that are projected


@dataclass(frozen=True)
class Options:
    """What is looked at closely: None means a choice that shows the whole network."""

    layer: str | None = None
    unit: int | None = None
    square: int | None = None  # side in pixels of what hides a part of the image

    def check(self, subject: Subject) -> None:
        """ValueError for a layer or unit that the network has not, or a square larger than the image."""
        if self.layer is not None:
            units = look.trace(subject.model, subject.x).find(self.layer).y.shape[-1]
            if self.unit is not None and self.unit >= units:
                raise ValueError(f"layer {self.layer!r} has units 0 to {units - 1}, there is no unit {self.unit}")
        side = subject.model.image_size
        if self.square is not None and self.square > side:
            raise ValueError(f"--square {self.square} is larger than the image that the network sees, {side} pixels")


def _says(function: Callable) -> str:
    """How to read the result: the function's own explanation, without what only callers need, and its source."""
    text = str(inspect.getdoc(function))
    explanation = itertools.takewhile(lambda part: not part.startswith(("x (", "Returns")), text.split("\n\n"))
    source = re.findall(r"\bSource[^:]*: .*", text, re.DOTALL)
    return "\n\n".join([*explanation, *source])


def _layers(subject: Subject, options: Options) -> list[str]:
    return [options.layer] if options.layer else look.stages(subject.model, subject.x)


def _large(picture: np.ndarray) -> np.ndarray:
    return render.enlarged(picture, 256)


def _listed(kind: str, units: list[int]) -> str:
    return f"{kind} {units[0]}" if len(units) == 1 else f"the strongest first: {kind}s {', '.join(map(str, units))}"


def filters(subject: Subject, options: Options) -> Section:
    layer, w = look.first_filters(subject.model)
    kh, kw, channels, outputs = w.shape
    sheet = render.tiles([render.enlarged(render.signed(w[..., o]), 42) for o in range(outputs)])
    seen = {1: "in grey", 3: "in colour"}.get(channels, f"the mean of their {channels} channels")
    caption = f"{layer}: {outputs} filters of {kh}×{kw}, {seen}; mid-grey is 0, each has a scale of its own."
    return Section(
        "First-layer filters", _says(look.first_filters), [Figure("filters.png", render.png(sheet), caption)]
    )


def maps(subject: Subject, options: Options) -> Section:
    figures = []
    for layer in _layers(subject, options):
        found = look.feature_maps(subject.model, subject.x, layer)  # (H, W, C)
        units = look.strongest(found, TILES) if options.unit is None else [options.unit]
        side = 72 if len(units) > 1 else 256
        sheet = render.tiles([render.enlarged(render.brightness(found[..., c]), side) for c in units])
        caption = f"{layer}, {'×'.join(map(str, found.shape))}; {_listed('channel', units)}."
        figures.append(Figure(f"maps-{layer}.png", render.png(sheet), caption))
    return Section("Feature maps", _says(look.feature_maps), figures)


def projections(subject: Subject, options: Options) -> Section:
    figures = []
    for layer in _layers(subject, options):
        y = look.trace(subject.model, subject.x).find(layer).y.numpy()  # (1, H, W, C) or (1, C)
        strongest = look.strongest(y.reshape(-1, 1, y.shape[-1]), UNITS)
        units = strongest if options.unit is None else [options.unit]
        patterns = look.projections(subject.model, subject.x, layer, units)
        side = 128 if len(units) > 1 else 256
        sheet = render.tiles([_where_and_what(subject.picture, pattern, side) for pattern in patterns])
        caption = (
            f"{layer}; {_listed('unit', units)}. For each: where in the image, the image there, and the pattern there, "
            "on a scale of its own; grey is 0."
        )
        figures.append(Figure(f"projections-{layer}.png", render.png(sheet), caption))
    return Section("Deconvnet projections", _says(look.projections), figures)


def _where_and_what(picture: np.ndarray, pattern: np.ndarray, side: int) -> np.ndarray:
    """The picture, dimmed where nothing of a pattern comes from; that part of the picture; the pattern there."""
    place = _square_around(abs(pattern).max(axis=2))
    dimmed = picture // 4
    dimmed[place] = picture[place]
    return render.tiles(
        [render.fitted(a, side) for a in (dimmed, picture[place], render.signed(pattern[place]))], columns=3
    )


def _square_around(strength: np.ndarray) -> tuple[slice, slice]:
    """The smallest square that holds all of a map (H, W) but what is too faint to be seen; all of it where it is 0."""
    visible = strength >= strength.max() / 50
    ends = [np.flatnonzero(visible.any(axis=axis))[[0, -1]] for axis in (1, 0)]  # first and last row, column
    side = max(int(last - first) for first, last in ends) + 1
    starts = [
        min(int(first + last + 1 - side) // 2, n - side) for (first, last), n in zip(ends, strength.shape, strict=True)
    ]
    top, left = (max(start, 0) for start in starts)
    return slice(top, top + side), slice(left, left + side)


def occlusion(subject: Subject, options: Options) -> Section:
    found = look.occlusion_map(subject.model, subject.x, subject.label, size=options.square)
    image = _large(subject.picture)
    lost = np.clip(found.whole - found.probability, 0, None)
    plain = render.fitted(render.heat(found.probability), image.shape[0])
    sheet = render.tiles([image, render.over(image, lost / (lost.max() or 1)), plain], columns=3)
    name, low = subject.classes[subject.label], found.probability.min()
    others = [subject.classes[i] for i in np.unique(found.said) if i != subject.label]
    instead = f" With a part hidden, the likeliest class is somewhere {', '.join(others[:5])}." if others else ""
    caption = (
        f"The image; bright where hiding it costs {name} the most; the probability of {name} with the square there, "
        f"dark for 0, bright for 1. With nothing hidden it is {found.whole:.3f}, at the worst place {low:.3f}.{instead}"
    )
    return Section("Occlusion", _says(look.occlusion_map), [Figure("occlusion.png", render.png(sheet), caption)])


def gradcam(subject: Subject, options: Options) -> Section:
    layer = options.layer or look.trace(subject.model, subject.x).find_map().name
    cam = look.grad_cam(subject.model, subject.x, subject.label, layer)
    image = _large(subject.picture)
    sheet = render.tiles([image, render.over(image, cam / (cam.max() or 1))], columns=2)
    caption = f"Evidence for {subject.classes[subject.label]} in {layer}, a map of {'×'.join(map(str, cam.shape))}."
    return Section("Grad-CAM", _says(look.grad_cam), [Figure("gradcam.png", render.png(sheet), caption)])


def branches(subject: Subject, options: Options) -> Section:
    shares = look.branch_shares(subject.model, subject.x, subject.label)
    if not shares:
        return Section("Inception branches", f"{subject.model.name} has no parallel branches.", [])
    labels = [f"{share.module} {share.branch}" for share in shares]
    measures = {
        "channels": [share.channels for share in shares],
        "own weights": [share.own_weights for share in shares],
        "weights behind": [share.weights_behind for share in shares],
        "gradient": [share.gradient for share in shares],
    }
    caption = f"Shares of each module's total; the gradient is that of the score of {subject.classes[subject.label]}."
    figure = Figure("branches.png", render.png(render.bars(labels, measures)), caption)
    return Section("Inception branches", _says(look.branch_shares), [figure])


def responses(subject: Subject, options: Options) -> Section:
    found = look.layer_responses(subject.model, subject.others)
    sheet = render.bars(list(found), {"standard deviation": list(found.values())})
    caption = f"Standard deviation, over {len(subject.others)} image{'s' if len(subject.others) > 1 else ''}."
    return Section(
        "Layer responses", _says(look.layer_responses), [Figure("responses.png", render.png(sheet), caption)]
    )


def network(subject: Subject, options: Options) -> Section:
    boxes = look.network_graph(subject.model, subject.x)
    caption = f"{subject.model.name}: {len(boxes) - 1} ops for one image, each with the shape of its result."
    figure = Figure("network.svg", drawing.draw(boxes).encode(), caption)
    return Section("The network", _says(look.network_graph), [figure])


PARTS: dict[str, Callable[[Subject, Options], Section]] = {
    "filters": filters,
    "maps": maps,
    "projections": projections,
    "occlusion": occlusion,
    "gradcam": gradcam,
    "branches": branches,
    "responses": responses,
    "network": network,
}
