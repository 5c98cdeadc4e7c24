"""What the studies' tests train on: images of 8 × 8 pixels, in place of the bundled ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernels.cpu import threads
from minicnn.study.__main__ import main


@pytest.fixture(autouse=True)
def same_threads_afterwards(monkeypatch):
    monkeypatch.setattr(threads, "_count", threads.count())


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """An .npz data set: 60 training and 40 test images of two classes, bright on the left or on the right."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 60), ("test", 40)):
        y = np.arange(count) % 2
        x = rng.integers(0, 150, (count, 8, 8, 1))
        for i, label in enumerate(y):
            x[i, :, 4 * label : 4 * label + 4] += 100
        arrays |= {f"x_{split}": x.astype(np.uint8), f"y_{split}": y}
    path = tmp_path_factory.mktemp("data") / "sides.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def study(images, tmp_path):
    """`study(*arguments)` runs the command on those images into tmp_path / "out", and returns its exit code."""

    def run(*arguments: object) -> int:
        return main([*map(str, arguments), "--data", f"bundled={images}", "--out", str(tmp_path / "out")])

    return run
