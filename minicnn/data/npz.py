"""A NumPy archive with x_train, y_train, x_test, y_test and, if you like, classes: the easiest way to bring own data.

    numpy.savez_compressed("mine.npz", x_train=..., y_train=..., x_test=..., y_test=..., classes=["cat", "dog"])

Nothing is unpickled, and no array is allocated before its header agrees with the archive's directory.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from minicnn.data.errors import DataError, check_expansion, reading
from minicnn.data.splits import Splits, check_counts, check_labels, class_names

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
LOOKS_FOR = f"a file NAME.npz with {', '.join(ARRAYS)}"


def read(path: Path, classes: tuple[str, ...] | None = None) -> Splits:
    """An archive's arrays: images uint8 (N, H, W, C) or (N, H, W), labels any integers (N,) or (N, 1)."""
    with reading(path), zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        missing = [name for name in ARRAYS if name not in names]
        if missing:
            raise DataError(f"{path}: {', '.join(missing)} missing, it holds {', '.join(sorted(names)) or 'nothing'}")
        x_train, y_train, x_test, y_test = (read_member(archive, path, name) for name in ARRAYS)
        stored_classes = read_member(archive, path, "classes") if "classes" in names else None

    x_train, x_test = _images(f"{path}: x_train", x_train), _images(f"{path}: x_test", x_test)
    y_train, y_test = _labels(f"{path}: y_train", y_train), _labels(f"{path}: y_test", y_test)
    if classes is None and stored_classes is not None:
        classes = _names(f"{path}: classes", stored_classes)
    classes = class_names(classes, y_train, f"{path}: y_train")
    for split, images, labels in (("train", x_train, y_train), ("test", x_test, y_test)):
        check_counts(f"{path}: x_{split}", len(images), f"y_{split}", len(labels))
        check_labels(f"{path}: y_{split}", labels, classes)
    return Splits(x_train, y_train, x_test, y_test, classes)


def read_member(archive: zipfile.ZipFile, path: Path, name: str) -> np.ndarray:
    """One array of the archive, its header checked against the directory and the directory against the file."""
    info = archive.getinfo(f"{name}.npy")
    check_expansion(f"{path}: {name}", info.file_size, min(info.compress_size, path.stat().st_size))
    with archive.open(info) as stream:
        shape, fortran_order, dtype = _read_header(stream)
        if dtype.hasobject:
            raise DataError(f"{path}: {name} holds Python objects, which are never unpickled; save a plain array")
        size = math.prod(shape) * dtype.itemsize
        content = stream.read(size) if size <= info.file_size else b""
        if len(content) != size or stream.read(1):  # the read past the end verifies the checksum
            raise DataError(f"{path}: {name} is damaged, its header says {shape} {dtype}; make it again")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(stream)
    return npy.read_array_header_1_0(stream) if version == (1, 0) else npy.read_array_header_2_0(stream)


def _images(source: str, images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8:
        raise DataError(f"{source} is {images.dtype}, but images are stored as uint8 from 0 to 255; convert it")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise DataError(f"{source} has shape {images.shape}, but images are (N, H, W, C) or (N, H, W)")
    if images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise DataError(f"{source} has shape {images.shape}, channels first; transpose it with .transpose(0, 2, 3, 1)")
    return np.ascontiguousarray(images)


def _labels(source: str, labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{source} is {labels.dtype} {labels.shape}, but labels are whole numbers (N,)")
    return labels.astype(np.int64)


def _names(source: str, names: np.ndarray) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind != "U" or names.size == 0:
        raise DataError(f"{source} is {names.dtype} {names.shape}, but class names are a list of strings")
    return tuple(str(name) for name in names)
