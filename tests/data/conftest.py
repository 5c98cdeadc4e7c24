"""Small data sets in every format, made from one set of random arrays."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn.data.dataset import Dataset

CLASSES = 10


def splits(channels: int, side: int, n_train: int = 40, n_test: int = 20) -> dict[str, np.ndarray]:
    """Random images, and labels in which every class occurs."""
    rng = np.random.default_rng(5)
    return {
        "x_train": rng.integers(0, 256, (n_train, side, side, channels), dtype=np.uint8),
        "y_train": rng.permutation(np.arange(n_train, dtype=np.uint8) % CLASSES),
        "x_test": rng.integers(0, 256, (n_test, side, side, channels), dtype=np.uint8),
        "y_test": rng.permutation(np.arange(n_test, dtype=np.uint8) % CLASSES),
    }


@pytest.fixture
def grey() -> dict[str, np.ndarray]:
    return splits(channels=1, side=12)


@pytest.fixture
def colour() -> dict[str, np.ndarray]:
    return splits(channels=3, side=32)


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def idx_plain(tmp_path: Path, grey: dict[str, np.ndarray]) -> Path:
    folder = tmp_path / "idx"
    folder.mkdir()
    for prefix, split in (("train", "train"), ("t10k", "test")):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(grey[f"x_{split}"][..., 0]))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(grey[f"y_{split}"]))
    return folder


@pytest.fixture
def idx_gzipped(idx_plain: Path) -> Path:
    for path in list(idx_plain.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return idx_plain


@pytest.fixture(params=["idx_plain", "idx_gzipped"])
def idx_folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def cifar_records(images: np.ndarray, *labels: np.ndarray) -> bytes:
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([np.stack(labels, axis=1), planes], axis=1).tobytes()


@pytest.fixture
def cifar10_folder(tmp_path: Path, colour: dict[str, np.ndarray]) -> Path:
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for i in range(5):
        part = slice(8 * i, 8 * i + 8)
        records = cifar_records(colour["x_train"][part], colour["y_train"][part])
        (folder / f"data_batch_{i + 1}.bin").write_bytes(records)
    (folder / "test_batch.bin").write_bytes(cifar_records(colour["x_test"], colour["y_test"]))
    return folder


@pytest.fixture
def cifar100_folder(tmp_path: Path, colour: dict[str, np.ndarray]) -> Path:
    folder = tmp_path / "cifar100"
    folder.mkdir()
    for split in ("train", "test"):
        fine = colour[f"y_{split}"] * 9
        records = cifar_records(colour[f"x_{split}"], np.full_like(fine, 250), fine)
        (folder / f"{split}.bin").write_bytes(records)
    (folder / "fine_label_names.txt").write_text("\n".join(f"class_{i}" for i in range(100)) + "\n")
    return folder


@pytest.fixture
def npz_file(tmp_path: Path, colour: dict[str, np.ndarray]) -> Path:
    path = tmp_path / "own.npz"
    np.savez_compressed(path, allow_pickle=False, **colour)
    return path


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes of smooth images of different sizes: two files each for training, one for validation."""
    rng = np.random.default_rng(7)
    folder = tmp_path / "pictures"
    for split, count in (("train", 2), ("val", 1)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                picture = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
                picture.resize((70 + 10 * i, 50), Image.Resampling.BICUBIC).save(folder / split / name / f"{i}.jpg")
    return folder


@pytest.fixture
def dataset() -> Dataset:
    """A data set whose images say their own index in their first pixel."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (103, 8, 8, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(103)
    labels = np.arange(103, dtype=np.int64) % 5
    mean, std = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.2, 0.25, 0.3], np.float32)
    return Dataset("numbered", images, labels, tuple("abcde"), mean, std)
