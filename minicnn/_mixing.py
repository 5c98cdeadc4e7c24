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


def check_compatible(name: str, arrays: tuple[Any, ...]) -> None:
    """One op, one device, one floating dtype: transfers and conversions are never silent."""
    arrays = tuple(a for a in arrays if hasattr(a, "dtype"))
    modules = {array_module(a).__name__ for a in arrays}
    if len(modules) > 1:
        raise TypeError(f"{name}: NumPy and CuPy arrays are mixed; move them to one device with minicnn.device.to")
    dtypes = {a.dtype for a in arrays if a.dtype.kind == "f"}
    if len(dtypes) > 1:
        raise TypeError(f"{name}: dtypes {' and '.join(sorted(map(str, dtypes)))} are mixed; convert one with .astype")
