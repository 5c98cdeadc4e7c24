"""A network that cannot learn a few images by heart has a wrong gradient somewhere."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from minicnn import Tensor, layers, models, optim
from minicnn.data import load
from tests import device


def some_images(count: int) -> tuple[Any, Any]:
    """The first bundled images, every second pixel of them: x (count, 14, 14, 1) and labels (count,), on the device."""
    images, labels = load("bundled").take(numpy.arange(count))
    x = ((images[:, ::2, ::2] / 255 - 0.29) / 0.35).astype(numpy.float32)
    return device.there(x), device.there(labels)


def learn(model: layers.Module, x: Any, labels: Any, *, lr: float, steps: int) -> None:
    """Train until every image is classified right; the test fails if that takes more steps."""
    optimiser = optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        outputs = model(Tensor(x))
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        if (logits.data.argmax(axis=1) == labels).all():
            return
        optimiser.zero_grad()
        models.loss(outputs, labels).backward()
        optimiser.step()
    pytest.fail(f"some of {len(labels)} images are still misclassified after {steps} steps")
