"""How weights start: each function fills a Tensor in place and returns it.

A layer keeps the size of its signal if the variance of its weights is 1 / fan_in (LeCun 1998), the size of the
gradient if it is 1 / fan_out; Glorot takes the mean of both, He doubles it because ReLU lets half of it through.
Numbers are drawn in float64 from `rng` (default: the generator that `minicnn.seed` restarts) and cast to the
tensor's dtype, so float32 and float64 networks start from the same values.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator

import numpy as np

from kernels import array_module
from minicnn import random
from minicnn.autograd import Tensor


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out): how many inputs one output sees, how many outputs one input reaches.

    A linear weight is (in, out); a convolution's is (KH, KW, C/groups, O), where each tap counts.
    """
    taps = math.prod(shape[:-2])
    return taps * shape[-2], taps * shape[-1]


_skipping: contextvars.ContextVar[bool] = contextvars.ContextVar("skipping", default=False)


@contextlib.contextmanager
def skipped() -> Iterator[None]:
    """Within the block nothing is drawn, and new layers stay at 0: for weights that are counted, or set right after."""
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


def _draw(t: Tensor, rng: np.random.Generator | None, values: Callable[[np.random.Generator], np.ndarray]) -> Tensor:
    if not _skipping.get():
        t.data[...] = array_module(t.data).asarray(values(rng or random.weights()), dtype=t.dtype)
    return t


def normal(t: Tensor, std: float, *, rng: np.random.Generator | None = None) -> Tensor:
    """Draw from N(0, std²)."""
    return _draw(t, rng, lambda rng: rng.normal(0.0, std, t.shape))


def uniform(t: Tensor, limit: float, *, rng: np.random.Generator | None = None) -> Tensor:
    """Draw from U(-limit, limit), whose variance is limit² / 3."""
    return _draw(t, rng, lambda rng: rng.uniform(-limit, limit, t.shape))


def truncated_normal(t: Tensor, std: float, *, bound: float = 2.0, rng: np.random.Generator | None = None) -> Tensor:
    """Draw from N(0, std²), again wherever the value lies more than `bound` standard deviations out."""

    def values(rng: np.random.Generator) -> np.ndarray:
        values = rng.normal(0.0, 1.0, t.shape)
        while (outside := np.abs(values) > bound).any():
            values[outside] = rng.normal(0.0, 1.0, int(outside.sum()))
        return std * values

    return _draw(t, rng, values)


def constant(t: Tensor, value: float) -> Tensor:
    """Set every element to `value`."""
    t.data[...] = value
    return t


def _fan(t: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"init: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return fans(t.shape)[mode == "fan_out"]


def he_normal(t: Tensor, mode: str = "fan_in", *, rng: np.random.Generator | None = None) -> Tensor:
    """N(0, 2 / fan): keeps the variance through a layer that is followed by ReLU (He 2015, arXiv 1502.01852 §2.2)."""
    return normal(t, math.sqrt(2 / _fan(t, mode)), rng=rng)


def he_uniform(t: Tensor, mode: str = "fan_in", *, rng: np.random.Generator | None = None) -> Tensor:
    """`he_normal`'s variance from a uniform distribution."""
    return uniform(t, math.sqrt(6 / _fan(t, mode)), rng=rng)


def glorot_normal(t: Tensor, *, rng: np.random.Generator | None = None) -> Tensor:
    """N(0, 2 / (fan_in + fan_out)): a compromise between signal and gradient (Glorot & Bengio 2010 §4.2.1)."""
    return normal(t, math.sqrt(2 / sum(fans(t.shape))), rng=rng)


def glorot_uniform(t: Tensor, *, rng: np.random.Generator | None = None) -> Tensor:
    """`glorot_normal`'s variance from a uniform distribution, as printed in the paper's equation 16."""
    return uniform(t, math.sqrt(6 / sum(fans(t.shape))), rng=rng)


def lecun_normal(t: Tensor, *, rng: np.random.Generator | None = None) -> Tensor:
    """N(0, 1 / fan_in): keeps the variance through a linear layer (LeCun 1998, Efficient BackProp §4.6)."""
    return normal(t, math.sqrt(1 / fans(t.shape)[0]), rng=rng)


def lecun_uniform(t: Tensor, *, rng: np.random.Generator | None = None) -> Tensor:
    """U(±sqrt(3 / fan_in)), the same variance. Caffe calls this one "xavier": it is what its GoogLeNet starts from."""
    return uniform(t, math.sqrt(3 / fans(t.shape)[0]), rng=rng)


caffe_xavier = lecun_uniform
