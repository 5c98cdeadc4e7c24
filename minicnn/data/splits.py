"""What every reader hands over, and the checks that hold whatever the format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minicnn.data.errors import DataError

if TYPE_CHECKING:
    from minicnn.data.folder import ImageFiles

MAX_CLASSES = 65_536  # a label beyond is a damaged file rather than a class


class Splits(NamedTuple):
    """The two halves of a data set: images uint8 (N, H, W, C), labels int64 (N,), and the names of the classes."""

    x_train: np.ndarray | ImageFiles
    y_train: np.ndarray
    x_test: np.ndarray | ImageFiles
    y_test: np.ndarray
    classes: tuple[str, ...]


def class_names(known: tuple[str, ...] | None, labels: np.ndarray, source: str | Path) -> tuple[str, ...]:
    """The known names, or "0", "1", … up to the largest training label."""
    if known:
        return known
    count = int(labels.max(initial=-1)) + 1
    if count > MAX_CLASSES:
        raise DataError(f"{source}: label {count - 1} is out of range, at most {MAX_CLASSES} classes are possible")
    return tuple(str(i) for i in range(count))


def check_labels(source: str | Path, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    """Every label is the number of a class."""
    wrong = (labels < 0) | (labels >= len(classes))
    if wrong.any():
        where = int(wrong.argmax())
        raise DataError(
            f"{source}: label {labels[where]} of image {where} is out of range; "
            f"the {len(classes)} training classes are numbered 0 to {len(classes) - 1}"
        )


def check_counts(images_source: str | Path, images: int, labels_source: str | Path, labels: int) -> None:
    """There is one label for each image, and at least one of both."""
    if images != labels:
        raise DataError(
            f"{images_source} holds {images} images but {labels_source} holds {labels} labels; "
            "they do not belong together, get both from one source"
        )
    if images == 0:
        raise DataError(f"{images_source}: holds no images")
