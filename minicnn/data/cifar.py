"""CIFAR-10 and CIFAR-100 in their binary form: records of one or two label bytes and three planes of 32 by 32 pixels.

Source: Krizhevsky, "The CIFAR-10 and CIFAR-100 datasets", section "Binary version", cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from minicnn.data.errors import DataError, reading
from minicnn.data.splits import Splits, check_labels

SIDE = 32
PIXELS = 3 * SIDE * SIDE


class Layout(NamedTuple):
    """How one of the two sets is stored: its files, and the label bytes before each image, of which the last counts."""

    train: tuple[str, ...]
    test: str
    names: str
    label_bytes: int
    classes: int


CIFAR10 = Layout(tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "batches.meta.txt", 1, 10)
CIFAR100 = Layout(("train.bin",), "test.bin", "fine_label_names.txt", 2, 100)  # a coarse label, then the fine one
LOOKS_FOR = "CIFAR's binary files data_batch_1.bin to data_batch_5.bin and test_batch.bin, or train.bin and test.bin"


def matches(folder: Path) -> bool:
    return _layout(folder) is not None


def read(folder: Path, classes: tuple[str, ...] | None = None) -> Splits:
    """The binary files of CIFAR-10 or CIFAR-100 in a folder; the planes become (N, 32, 32, 3)."""
    layout = _layout(folder)
    if layout is None:
        raise DataError(f"{folder}: no CIFAR data set; looked for {LOOKS_FOR}")
    classes = classes or _names(folder / layout.names, layout.classes)
    train = [_read_file(folder / name, layout, classes) for name in layout.train]
    x_test, y_test = _read_file(folder / layout.test, layout, classes)
    return Splits(np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train]), x_test, y_test, classes)


def _layout(folder: Path) -> Layout | None:
    for layout in (CIFAR10, CIFAR100):
        if any((folder / name).is_file() for name in (*layout.train, layout.test)):
            return layout
    return None


def _read_file(path: Path, layout: Layout, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    record = layout.label_bytes + PIXELS
    with reading(path):
        content = np.fromfile(path, np.uint8)
    if content.size == 0 or content.size % record:
        raise DataError(f"{path}: {content.size} bytes are not a whole number of {record}-byte records; get it again")
    records = content.reshape(-1, record)  # (N, label bytes + planes)
    labels = records[:, layout.label_bytes - 1].astype(np.int64)
    check_labels(path, labels, classes)
    planes = records[:, layout.label_bytes :].reshape(-1, 3, SIDE, SIDE)  # (N, C, H, W)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels  # (N, H, W, C)


def _names(path: Path, count: int) -> tuple[str, ...]:
    """The class names, one a line, of the text file that comes with the data; "0", "1", … without it."""
    if not path.is_file():
        return tuple(str(i) for i in range(count))
    with reading(path):
        names = tuple(path.read_text(encoding="utf-8").split())
    if len(names) != count:
        raise DataError(f"{path}: holds {len(names)} class names, not {count}; get it again or remove it")
    return names
