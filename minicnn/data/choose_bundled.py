"""How the bundled images were chosen: `python -m minicnn.data.choose_bundled FOLDER-WITH-FASHION-MNIST`.

500 training and 100 test images of each class, drawn without replacement by a generator with a fixed seed, in the order
that they have in the full set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from minicnn.data import idx
from minicnn.data.catalogue import FASHION_CLASSES
from minicnn.data.registry import BUNDLED_FILE

SEED = 0
PER_CLASS = {"train": 500, "test": 100}


def balanced(labels: np.ndarray, per_class: int, generator: np.random.Generator) -> np.ndarray:
    """The sorted indices of `per_class` images of each class: int64 (per_class · classes,)."""
    members = (np.flatnonzero(labels == label) for label in range(len(FASHION_CLASSES)))
    return np.sort(np.concatenate([generator.choice(m, per_class, replace=False) for m in members]))


def choose(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of the bundled file, from a folder with the full data set."""
    full = idx.read(folder, FASHION_CLASSES)
    generator = np.random.default_rng(SEED)
    train = balanced(full.y_train, PER_CLASS["train"], generator)
    test = balanced(full.y_test, PER_CLASS["test"], generator)
    return {
        "x_train": full.x_train[train],  # (5000, 28, 28, 1)
        "y_train": full.y_train[train].astype(np.uint8),
        "x_test": full.x_test[test],  # (1000, 28, 28, 1)
        "y_test": full.y_test[test].astype(np.uint8),
        "classes": np.array(FASHION_CLASSES),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Choose the bundled images from Fashion-MNIST.")
    parser.add_argument("folder", type=Path, help="the folder with Fashion-MNIST's four IDX files")
    arrays = choose(parser.parse_args().folder)
    np.savez_compressed(BUNDLED_FILE, allow_pickle=False, **arrays)
    print(f"{BUNDLED_FILE}: {BUNDLED_FILE.stat().st_size} bytes")
