"""A folder of images: train/CLASS/*.jpg and val/CLASS/*.jpg (or test/), decoded when a batch asks for them.

Large JPEGs are decoded at a fraction of their size (libjpeg's scaled DCT, Pillow's draft mode), which costs a fraction
of the time; then the largest centred square is resampled to `image_size`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from minicnn.data.errors import DataError, reading
from minicnn.data.pixels import centred_square, resample_picture
from minicnn.data.splits import Splits

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")  # Pillow's other readers are not needed, and some start programs
MAX_PIXELS = 2**26  # of one decoded image: a small file can claim to be a huge one
LOOKS_FOR = "folders train/CLASS and val/CLASS (or test/CLASS) with JPEG, PNG, WebP, BMP or PPM images"


class ImageFiles:
    """Image files that read like an array of shape (N, size, size, 3) and are decoded at every access.

    `files[i]` is an image, `files[indices]` a batch; both raise DataError, naming the file, for one that is corrupt.
    `read(indices)` is the loader's way: with `skip_corrupt` it leaves those out and remembers them in `corrupt`.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, files: Iterable[str], image_size: int, skip_corrupt: bool = False):
        self.files, self.image_size, self.skip_corrupt = tuple(files), image_size, skip_corrupt
        self.corrupt: set[str] = set()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), self.image_size, self.image_size, 3

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        chosen = np.arange(len(self))[index]
        if chosen.ndim == 0:
            return decode(self.files[chosen], self.image_size)
        return self._stack([decode(self.files[i], self.image_size) for i in chosen])

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images at `indices` and which of the indices they are: all, or with `skip_corrupt` the readable ones."""
        images, kept = [], []
        for i in indices:
            image = self._readable(i, lambda file: decode(file, self.image_size))
            if image is not None:
                images.append(image)
                kept.append(i)
        return self._stack(images), np.array(kept, dtype=np.int64)

    def whole(self, index: int, least: int) -> np.ndarray | None:
        """All of an image, not resampled: uint8 (H, W, 3), of a JPEG perhaps a fraction no smaller than `least` pixels.

        None, with `skip_corrupt`, for one that cannot be decoded.
        """
        return self._readable(index, lambda file: np.asarray(_picture(file, least)))

    def subset(self, indices: np.ndarray) -> ImageFiles:
        return ImageFiles((self.files[i] for i in indices), self.image_size, self.skip_corrupt)

    def _readable(self, index: int, decoded: Callable[[str], np.ndarray]) -> np.ndarray | None:
        """What `decoded` makes of a file; None, with `skip_corrupt`, for a corrupt one, which is remembered."""
        try:
            return decoded(self.files[index])
        except DataError:
            if not self.skip_corrupt:
                raise
            self.corrupt.add(self.files[index])
            return None

    def _stack(self, images: list[np.ndarray]) -> np.ndarray:
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)


def decode(file: str, size: int) -> np.ndarray:
    """The largest centred square of an image file, resampled: (size, size, 3) uint8, RGB whatever the file holds."""
    picture = _picture(file, size)
    return np.asarray(resample_picture(picture, centred_square(*picture.size), size))


def _picture(file: str, least: int) -> Image.Image:
    """An image file as RGB, decoded at a fraction of its size where both sides still have `least` pixels then."""
    with reading(file), Image.open(file, formats=FORMATS) as picture:
        picture.draft("RGB", (least, least))  # JPEG only: no smaller than that, by a power of two
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise DataError(f"{file}: {width}×{height} pixels are too many, at most {MAX_PIXELS}; shrink the image")
        return picture.convert("RGB")


def matches(folder: Path) -> bool:
    return (folder / "train").is_dir()


def read(
    folder: Path, classes: tuple[str, ...] | None = None, *, image_size: int = 224, skip_corrupt: bool = False
) -> Splits:
    """An image folder. Its classes are the folders under train/ in alphabetical order; `classes` renames them."""
    held_out = next((folder / name for name in ("val", "test") if (folder / name).is_dir()), None)
    if held_out is None:
        raise DataError(f"{folder}: has train/ but neither val/ nor test/; looked for {LOOKS_FOR}")
    names = _class_folders(folder / "train")
    if classes is not None and len(classes) != len(names):
        raise DataError(f"{folder / 'train'}: has {len(names)} class folders, but {len(classes)} classes are expected")
    train_files, y_train = _scan(folder / "train", names)
    test_files, y_test = _scan(held_out, names)
    x_train, x_test = (ImageFiles(files, image_size, skip_corrupt) for files in (train_files, test_files))
    return Splits(x_train, y_train, x_test, y_test, classes or names)


def _class_folders(folder: Path) -> tuple[str, ...]:
    with reading(folder), os.scandir(folder) as entries:
        names = tuple(sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")))
    if not names:
        raise DataError(f"{folder}: has no class folders; looked for {LOOKS_FOR}")
    return names


def _scan(folder: Path, names: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """The image files below folder/CLASS and their labels, in alphabetical order, whatever order the disk has."""
    unknown = sorted(set(_class_folders(folder)) - set(names))
    if unknown:
        raise DataError(f"{folder}: class folder {unknown[0]!r} is not one of the training classes; add it to train/")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        if not (folder / name).is_dir():
            continue  # a held-out split may lack a class
        with reading(folder / name), os.scandir(folder / name) as entries:
            found = sorted(e.path for e in entries if e.name.lower().endswith(SUFFIXES) and e.is_file())
        if not found:
            raise DataError(f"{folder / name}: holds no images ({', '.join(SUFFIXES)}); add some or remove the folder")
        files += found
        labels += [label] * len(found)
    return files, np.array(labels, dtype=np.int64)
