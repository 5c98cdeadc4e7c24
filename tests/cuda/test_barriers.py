"""Deleting any one `__syncthreads` changes what some kernel computes, in one of the orders of threads."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels import cuda
from kernels.cuda import columns, launcher
from kernels.cuda.launcher import Source
from tests.cuda import nvrtc
from tests.cuda.host.module import ORDERS, KernelError
from tests.cuda.numpy_launcher import NumpyLauncher

BARRIER = re.compile(r"__syncthreads\(\);")


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).uniform(0.5, 1.5, shape).astype(np.float32)


def normalisation() -> list[Any]:
    x, c = random(2, 11, 12, 9), random(9)
    return [cuda.batch_norm_stats(x), cuda.batch_norm_grad(x * x, x, c, c, c), cuda.bias_grad(x)]


def grouped_convolution() -> list[Any]:
    x, w = random(2, 5, 6, 24), random(3, 3, 12, 10)
    y = cuda.conv2d(x, w, pad=1, groups=2)
    options = {"pad": 1, "groups": 2}
    return [y, cuda.conv2d_input_grad(y, w, x.shape, **options), cuda.conv2d_weight_grad(y, x, w.shape, **options)]


# What runs the kernels of each file that has barriers, with several steps between barriers.
WORK: dict[str, Callable[[], list[Any]]] = {
    "batch_normalisation.cu": normalisation,
    "contrast_normalisation.cu": lambda: [cuda.lcn_grad(random(2, 6, 6, 3), random(2, 6, 6, 3), size=5)],
    "convolution.cu": grouped_convolution,
    "pooling.cu": lambda: [cuda.global_avg_pool(random(2, 7, 8, 9))],
    "response_normalisation.cu": lambda: [
        cuda.lrn(random(3, 3, 40), alpha=0.5),
        cuda.lrn_grad(random(3, 3, 40), random(3, 3, 40), alpha=0.5),
    ],
}


def barriers() -> list[tuple[str, int]]:
    """(file, which one) of every barrier that stands in a source."""
    files = sorted([*nvrtc.FOLDER.glob("*.cu"), *nvrtc.FOLDER.glob("*.cuh")])
    return [(file.name, i) for file in files for i in range(len(BARRIER.findall(file.read_text(encoding="utf-8"))))]


class Without(NumpyLauncher):
    """Runs kernels whose text lacks one barrier of one file."""

    def __init__(self, order: str, file: Path, which: int) -> None:
        super().__init__(order)
        self.whole = file.read_text(encoding="utf-8").rpartition('#include "common.cuh"')[2]
        found = list(BARRIER.finditer(self.whole))[which]
        self.mutant = self.whole[: found.start()] + self.whole[found.end() :]

    def text(self, source: Source) -> str:
        code = source.code.replace(self.whole, self.mutant)
        assert code != source.code
        return code


def results(run: Callable[[], list[Any]], host: NumpyLauncher) -> list[bytes] | str:
    try:
        with launcher.using(host):
            parts = [part for result in run() for part in (result if isinstance(result, tuple) else (result,))]
    except KernelError as error:
        return str(error)
    return [part.tobytes() for part in parts]


@pytest.fixture(scope="module", autouse=True)
def pieces() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "SMALLEST_CACHE", 4000)
        yield


@pytest.fixture(scope="module")
def right() -> dict[str, list[bytes]]:
    """The results of each file's work, which are the same in every order."""
    by_order = [{file: results(run, NumpyLauncher(order)) for file, run in WORK.items()} for order in ORDERS]
    assert all(results == by_order[0] for results in by_order)
    return by_order[0]


def test_every_file_with_barriers_has_work():
    assert set(WORK) >= {file for file, _ in barriers() if file.endswith(".cu")}


@pytest.mark.parametrize(("file", "which"), barriers())
def test_without_one_barrier_some_result_is_wrong(file, which, right):
    users = [name for name in WORK if file in (name, "common.cuh")]
    seen = [
        (name, order)
        for name in users
        for order in ORDERS
        if results(WORK[name], Without(order, nvrtc.FOLDER / file, which)) != right[name]
    ]
    assert seen, f"{file}: nothing shows that barrier {which} is there"
