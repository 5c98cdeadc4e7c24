"""Launchers that take NumPy arrays: one runs the kernels on the host, one keeps what it is asked to launch."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.cuda.launcher import Dim, Source
from tests.cuda.host.module import load


class NumpyLauncher:
    """Runs kernels on the host, their threads in the given order, with undefined behaviour an error."""

    array = np.ndarray

    def elsewhere(self, array: np.ndarray) -> str:
        return ""

    def __init__(self, order: str) -> None:
        self.order = order

    def text(self, source: Source) -> str:
        return source.code

    def launch(self, source: Source, kernel: str, grid: Dim, block: Dim, arguments: list[Any], shared: int) -> None:
        load(self.text(source), order=self.order, ubsan=True).launch(kernel, grid, block, arguments, shared)


class Recorder:
    """Launches nothing, but keeps (file, kernel) of what it is asked to."""

    array = np.ndarray

    def elsewhere(self, array: np.ndarray) -> str:
        return ""

    def __init__(self) -> None:
        self.launched: list[tuple[str, str]] = []

    def launch(self, source: Source, kernel: str, *_: Any) -> None:
        self.launched.append((source.path.name, kernel))
