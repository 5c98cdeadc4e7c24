"""From what stands behind `--data` to a Dataset: a name, folder or file, read by the format that recognises it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from minicnn.data import cifar, folder, idx, npz
from minicnn.data.catalogue import BUNDLED, PUBLIC, cache_folder, unknown
from minicnn.data.dataset import Dataset, channel_statistics
from minicnn.data.errors import DataError
from minicnn.data.folder import ImageFiles
from minicnn.data.pixels import resize
from minicnn.data.splits import Splits

BUNDLED_FILE = Path(__file__).with_name("bundled") / "fashion-mnist.npz"


def load(
    spec: str | Path = BUNDLED, split: str = "train", *, image_size: int | None = None, skip_corrupt: bool = False
) -> Dataset:
    """One split of a data set: `load("bundled")`, `load("fashion-mnist:FOLDER", "test")`, `load("mine.npz")`.

    spec is a name (`bundled`, or one of `python -m minicnn.data list`, found in the cache folder), a PATH, or
    NAME:PATH, which adds the names of the classes. A path is a folder with MNIST's four IDX files, with CIFAR's binary
    files, or with train/CLASS/*.jpg and val/CLASS/*.jpg; or an .npz file. image_size resamples the largest centred
    square of each image to that size; without it an image folder is read at 224. skip_corrupt leaves out the files of
    an image folder that cannot be decoded, and collects them in `Dataset.corrupt`.

    Raises DataError, a ValueError, with one line naming the file, what is wrong and what to do.
    """
    if split not in ("train", "test"):
        raise ValueError(f"load: split must be 'train' or 'test', got {split!r}")
    train, test = load_pair(spec, image_size=image_size, skip_corrupt=skip_corrupt)
    return train if split == "train" else test


def load_pair(
    spec: str | Path = BUNDLED, *, image_size: int | None = None, skip_corrupt: bool = False
) -> tuple[Dataset, Dataset]:
    """Both splits, (train, test), for the price of reading the files once; arguments and errors as `load`."""
    if image_size is not None and image_size < 1:
        raise ValueError(f"load: image_size must be at least 1, got {image_size}")
    name, path = _locate(str(spec))
    splits = _read(path, PUBLIC[name].classes if name in PUBLIC else None, image_size, skip_corrupt)
    x_train, x_test = _at_size(splits.x_train, image_size), _at_size(splits.x_test, image_size)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(f"{path}: training images are {x_train.shape}, test images {x_test.shape}; give image_size")
    mean, std = channel_statistics(x_train)
    name = name or path.resolve().stem
    return (
        Dataset(name, x_train, splits.y_train, splits.classes, mean, std),
        Dataset(name, x_test, splits.y_test, splits.classes, mean, std),
    )


def _locate(spec: str) -> tuple[str | None, Path]:
    """The known name in a spec, if there is one, and the path that it stands for."""
    name, colon, rest = spec.partition(":")
    if spec == BUNDLED:
        return BUNDLED, BUNDLED_FILE
    if spec in PUBLIC:
        path = cache_folder() / spec
        if not path.is_dir():
            raise DataError(
                f"data set {spec} is not on this machine: get it with `python -m minicnn.data get {spec}`, "
                f"or say where it is with {spec}:FOLDER"
            )
        return spec, path
    named = bool(colon) and name in PUBLIC
    path = Path(rest if named else spec).expanduser()
    if path.exists():
        return (name if named else None), path
    misspelt = colon and not named and Path(rest).expanduser().exists()
    if not misspelt and (named or os.sep in spec or path.suffix):
        raise DataError(f"{path}: no such file or folder")
    raise unknown(name)


def _read(path: Path, classes: tuple[str, ...] | None, image_size: int | None, skip_corrupt: bool) -> Splits:
    """The splits at a path, by the first format that recognises it."""
    if path.is_file():
        if path.suffix != ".npz":
            raise DataError(f"{path}: not a data set; a file must be an .npz with {', '.join(npz.ARRAYS)}")
        return npz.read(path, classes)
    if idx.matches(path):
        return idx.read(path, classes)
    if cifar.matches(path):
        return cifar.read(path, classes)
    if folder.matches(path):
        return folder.read(path, classes, image_size=image_size or 224, skip_corrupt=skip_corrupt)
    if (path / "batches.meta").is_file() or (path / "meta").is_file():
        raise DataError(f"{path}: holds CIFAR as Python pickles, which are never read; get its binary version")
    looked_for = "; ".join(reader.LOOKS_FOR for reader in (idx, cifar, folder))
    raise DataError(f"{path}: not a data set; looked for {looked_for}")


def _at_size(images: np.ndarray | ImageFiles, size: int | None) -> np.ndarray | ImageFiles:
    return images if size is None or isinstance(images, ImageFiles) else resize(images, size)
