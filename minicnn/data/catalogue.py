"""The public data sets that minicnn knows by name: where they come from, what their files must hash to, their classes.

The checksums are those that the authors publish beside the files (Fashion-MNIST, CIFAR) and that torchvision verifies
(MNIST, Imagenette; torchvision/datasets/mnist.py and imagenette.py).
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import NamedTuple

import platformdirs

from minicnn.data.errors import DataError


class File(NamedTuple):
    """A file and its checksum: MD5, or how the SHA-256 begins."""

    url: str
    md5: str = ""
    sha256: str = ""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


class PublicSet(NamedTuple):
    """One data set; `archive_folder` is the folder in its tar archive, or None where the files are used as they are."""

    title: str
    megabytes: int
    files: tuple[File, ...]
    archive_folder: str | None
    classes: tuple[str, ...] | None


FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENETTE_CLASSES = (
    "tench", "English springer", "cassette player", "chain saw", "church",
    "French horn", "garbage truck", "gas pump", "golf ball", "parachute",
)  # fmt: skip

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_CIFAR = "https://www.cs.toronto.edu/~kriz"

PUBLIC = {
    "mnist": PublicSet(
        "MNIST, handwritten digits, 28×28 grey, 10 classes (LeCun, Cortes, Burges)",
        12,
        (
            File(f"{_MNIST}/train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            File(f"{_MNIST}/train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
            File(f"{_MNIST}/t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
            File(f"{_MNIST}/t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
        None,
        tuple("0123456789"),
    ),
    "fashion-mnist": PublicSet(
        "Fashion-MNIST, articles of clothing, 28×28 grey, 10 classes (Zalando, MIT licence)",
        31,
        (
            File(f"{_FASHION}/train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            File(f"{_FASHION}/train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
            File(f"{_FASHION}/t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
            File(f"{_FASHION}/t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
        None,
        FASHION_CLASSES,
    ),
    "cifar10": PublicSet(
        "CIFAR-10, photographs, 32×32 colour, 10 classes (Krizhevsky)",
        170,
        (File(f"{_CIFAR}/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),),
        "cifar-10-batches-bin",
        CIFAR10_CLASSES,
    ),
    "cifar100": PublicSet(
        "CIFAR-100, photographs, 32×32 colour, 100 classes (Krizhevsky)",
        169,
        (File(f"{_CIFAR}/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),),
        "cifar-100-binary",
        None,  # their names are in the archive
    ),
    "imagenette": PublicSet(
        "Imagenette, ten easy ImageNet classes, JPEG with a short side of 320 (fast.ai)",
        342,
        (
            File(
                "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",
                "3df6f0d01a2c9592104656642f5e78a3",
            ),
        ),
        "imagenette2-320",
        IMAGENETTE_CLASSES,
    ),
}
BUNDLED = "bundled"  # the part of Fashion-MNIST that comes with the package


def cache_folder() -> Path:
    """Where downloaded data sets are kept."""
    return platformdirs.user_cache_path("minicnn") / "data"


def unknown(name: str) -> DataError:
    """The error for a name that is no data set: with the nearest names, or all of them."""
    names = (BUNDLED, *PUBLIC)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(names)}, or give a path"
    return DataError(f"unknown data set {name!r}: {hint}")
