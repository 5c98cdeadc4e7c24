"""Pictures of a trained network for its page, and two figures of its first filters: claim 16."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from minicnn import device, evaluate
from minicnn.data import Dataset
from minicnn.layers import Conv2d
from minicnn.look import feature_maps, first_filters, occlusion_map, projections, render, strongest
from minicnn.models import Model
from minicnn.study.claim import IMAGES, STEPS, Figures

SHOWN_UNITS = 9
FLAT = 0.1  # of the largest filter's norm: a filter below that has learned next to nothing
MIDDLE = (1 / 12, 1 / 4)  # cycles a pixel: between a filter's own size and one that changes from pixel to pixel
GRID = 32  # samples of a filter's spectrum


def first_layer(model: Model, images: Dataset) -> Figures:
    """The first filters, what excites the second convolution, and where the answer depends on the first test image."""
    _, filters = first_filters(model)
    batch, labels = next(iter(evaluate.batches(images, model.image_size)))
    x = device.to(batch[:1], device.of(next(model.parameters()).data))
    second = [name for name, layer in model.named_modules() if isinstance(layer, Conv2d)][1]
    units = strongest(feature_maps(model, x, second), SHOWN_UNITS)
    seen = occlusion_map(model, x, int(labels[0]), stride=max(model.image_size // 8, 1))
    image = render.brightness(batch[0].mean(axis=2))
    pictures = {
        "filters of the first layer": render.tiles([render.signed(w) for w in np.moveaxis(filters, 3, 0)]),
        "what excited the second convolution": render.tiles(
            [render.signed(p) for p in projections(model, x, second, units)]
        ),
        "where the answer depends on the image": render.over(image, seen.whole - seen.probability),
    }
    return {
        "flat_filters": 100 * _flat(filters),
        "middle_frequencies": 100 * _middle(filters),
        STEPS: {"flat_filters": 100 / filters.shape[3]},
        IMAGES: {says: base64.b64encode(render.png(picture)).decode() for says, picture in pictures.items()},
    }


def _flat(w: Any) -> float:
    """The share of filters (KH, KW, C, O) whose norm is next to nothing beside the largest."""
    norms = np.sqrt((w.astype(np.float64) ** 2).sum(axis=(0, 1, 2)))  # (O,)
    return float((norms < FLAT * norms.max()).mean())


def _middle(w: Any) -> float:
    """The share of all filters' energy, the constant part aside, at the frequencies between those of MIDDLE."""
    energy = (abs(np.fft.fft2(w.astype(np.float64), (GRID, GRID), axes=(0, 1))) ** 2).sum(axis=(2, 3))
    along = np.fft.fftfreq(GRID)
    frequency = np.hypot(along[:, None], along[None, :])
    energy[0, 0] = 0
    return float(energy[(frequency >= MIDDLE[0]) & (frequency < MIDDLE[1])].sum() / energy.sum())
