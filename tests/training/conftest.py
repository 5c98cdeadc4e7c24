"""What the trainer's tests train: 48 images of three classes, and a network that has everything that keeps a state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernels.cpu import threads
from minicnn import layers, models
from minicnn.train.__main__ import main


class Tiny(models.Model):
    """A convolution with BatchNorm, and two dropout layers."""

    def __init__(self, num_classes: int = 3, in_channels: int = 1, image_size: int = 8):
        self.conv1 = layers.Conv2d(in_channels, 8, 3, pad=1, bias=False)
        self.bn1 = layers.BatchNorm(8)
        self.drop1, self.drop2 = layers.Dropout(0.2), layers.Dropout(0.3)
        self.fc = layers.Linear(8, num_classes)

    def forward(self, x):
        x = self.drop1(self.bn1.relu(self.conv1(x)))
        return self.fc(self.drop2(x.mean(axis=(1, 2))))


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch):
    """`tiny` is a network's name."""
    monkeypatch.setitem(models._BUILDERS, "tiny", Tiny)


@pytest.fixture(autouse=True)
def same_threads_afterwards(monkeypatch):
    monkeypatch.setattr(threads, "_count", threads.count())


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """An .npz data set: 48 training and 24 test images of 8 × 8 pixels, brighter in one of three places."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 48), ("test", 24)):
        y = np.arange(count) % 3
        x = rng.integers(0, 120, (count, 8, 8, 1))
        for i, label in enumerate(y):
            x[i, 2 * label : 2 * label + 3] += 100
        arrays |= {f"x_{split}": x.astype(np.uint8), f"y_{split}": y}
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def train(data):
    """`train(*arguments)` runs the command on the tiny network and data, and returns its exit code."""

    def run(*arguments: object, model: str = "tiny") -> int:
        sizes = ["--data", data, "--batch-size", 12, "--validation", 0.2, "--augment", "shift:1,flip"]
        return main([str(a) for a in (model, *sizes, "--epochs", 3, *arguments)])

    return run
