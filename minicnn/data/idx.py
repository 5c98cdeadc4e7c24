"""IDX, the format of MNIST and Fashion-MNIST: a big-endian header of sizes, then the bytes, gzipped or not.

Source: the description at the end of LeCun, Cortes, Burges, "The MNIST database of handwritten digits", yann.lecun.com.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from minicnn.data.errors import DataError, check_expansion, reading
from minicnn.data.splits import Splits, check_counts, check_labels, class_names

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
LOOKS_FOR = f"the IDX files {', '.join(FILES)} (each may end in .gz)"
UNSIGNED_BYTE = 0x08


def matches(folder: Path) -> bool:
    return any(_candidates(folder, name) for name in FILES)


def read(folder: Path, classes: tuple[str, ...] | None = None) -> Splits:
    """The four files of a folder, as MNIST names them; images become (N, H, W, 1)."""
    paths = []
    for name in FILES:
        found = _candidates(folder, name)
        if not found:
            raise DataError(f"{folder}: {name}[.gz] is missing; an IDX data set has four files: {', '.join(FILES)}")
        paths.append(found[0])
    x_train, x_test = (read_array(path, 3)[..., None] for path in paths[::2])
    y_train, y_test = (read_array(path, 1).astype(np.int64) for path in paths[1::2])

    classes = class_names(classes, y_train, paths[1])
    for images, labels, (images_path, labels_path) in ((x_train, y_train, paths[:2]), (x_test, y_test, paths[2:])):
        check_counts(images_path, len(images), labels_path, len(labels))
        check_labels(labels_path, labels, classes)
    return Splits(x_train, y_train, x_test, y_test, classes)


def read_array(path: Path, ndim: int) -> np.ndarray:
    """One IDX file of bytes in `ndim` dimensions, as a uint8 array; its header is checked against its length."""
    with reading(path), gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
        header = stream.read(4 + 4 * ndim)  # 0, 0, type, ndim, then ndim sizes of four bytes
        if len(header) < 4 + 4 * ndim or header[:4] != bytes((0, 0, UNSIGNED_BYTE, ndim)):
            raise DataError(f"{path}: not an IDX file of bytes in {ndim} dimensions; is it the right one?")
        shape = struct.unpack(f">{ndim}I", header[4:])
        size, stored = math.prod(shape), path.stat().st_size
        if path.suffix == ".gz":
            check_expansion(path, size, stored)
        elif size != stored - len(header):
            raise _wrong_length(path, shape, stored - len(header))
        content = stream.read(size)
        rest = stream.read(1)  # at the end of a gzip stream this also verifies its checksum
        if len(content) < size or rest:
            raise _wrong_length(path, shape, f"more than {size}" if rest else len(content))
        return np.frombuffer(content, np.uint8).reshape(shape)


def _wrong_length(path: Path, shape: tuple[int, ...], found: int | str) -> DataError:
    sizes = "×".join(str(n) for n in shape)
    return DataError(
        f"{path}: truncated or damaged, its header promises {sizes} bytes but {found} follow; get it again"
    )


def _candidates(folder: Path, name: str) -> list[Path]:
    """The file under the names in use: train-images-idx3-ubyte or train-images.idx3-ubyte, with or without .gz."""
    names = (name, name.replace("-idx", ".idx"))
    return [path for n in names for path in (folder / n, folder / f"{n}.gz") if path.is_file()]
