"""What an op may be given together: one device, one floating dtype, and numbers that adopt it."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import array_module


def as_array(value: Any) -> Any:
    """The value itself, or the 0-d array that NumPy has made a scalar of."""
    return np.asarray(value) if isinstance(value, np.generic) else value


def as_number(value: Any) -> Any:
    """A NumPy scalar as a Python number, which adopts the dtype of the arrays beside it; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def check_compatible(name: str, arrays: tuple[Any, ...], statistics: tuple[int, ...] = ()) -> None:
    """One op, one device, one floating dtype: transfers and conversions are never silent.

    `statistics` are the positions of arrays that stay in float32 where maps are float16: half is too coarse for them.
    """
    modules = {array_module(a).__name__ for a in arrays if hasattr(a, "dtype")}
    if len(modules) > 1:
        raise TypeError(f"{name}: NumPy and CuPy arrays are mixed; move them to one device with minicnn.device.to")
    floating = {i: a.dtype for i, a in enumerate(arrays) if hasattr(a, "dtype") and a.dtype.kind == "f"}
    may_differ = [i for i in statistics if fits(floating.get(i), floating.get(0))]
    dtypes = {dtype for i, dtype in floating.items() if i not in may_differ}
    if len(dtypes) > 1:
        raise TypeError(f"{name}: dtypes {' and '.join(sorted(map(str, dtypes)))} are mixed; convert one with .astype")


def fits(statistic: Any, maps: Any) -> bool:
    """Whether a statistic of this dtype goes with maps of that one: of the same, or float32 with float16."""
    return statistic == maps or (statistic == np.float32 and maps == np.float16)
