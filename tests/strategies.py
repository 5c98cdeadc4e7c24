"""What Hypothesis draws: shapes, options and a seed, never the floats: shrinking would pull them to 0, ReLU's kink.

Windows are drawn from their outputs backwards, so that every example is valid and none is thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.device import np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Drawn:
    """The inputs of one call. `arrays()` makes them: one for each shape, the same for the same seed."""

    shapes: tuple[Shape, ...]
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    layout: str = "contiguous"

    def arrays(self, dtype: type = np.float64) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng(self.seed)
        return tuple(LAYOUTS[self.layout](spread(rng, shape).astype(dtype)) for shape in self.shapes)


def spread(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Values of both signs in (−2, 2), shuffled: no two are close, none is near 0, and no sum cancels exactly."""
    n = math.prod(shape)
    places = np.arange(n) + 0.25 - n / 2 + rng.uniform(-0.2, 0.2, n)  # evenly spaced by 1, then shaken a little
    return rng.permutation(places * (4 / n)).reshape(shape)


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contiguous": np.ascontiguousarray,
    "every other channel": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "channels first": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, -1, 0)), 0, -1),
}

channels = st.integers(1, 7)


def drawn(shapes: st.SearchStrategy, **options: st.SearchStrategy) -> st.SearchStrategy[Drawn]:
    """A Drawn with shapes and options from these strategies."""
    return st.builds(
        Drawn, shapes, st.fixed_dictionaries(options), st.integers(0, 2**32 - 1), st.sampled_from([*LAYOUTS])
    )


def maps(least: int = 1) -> st.SearchStrategy[Shape]:
    """(N, H, W, C) with H and W from `least` on."""
    return st.tuples(st.integers(1, 3), st.integers(least, 7), st.integers(least, 7), channels)


def length(draw: Callable, size: int, stride: int, pads: tuple[int, int], dilation: int = 1) -> int:
    """A number of positions along one axis that gives one window or more."""
    span = (size - 1) * dilation + 1
    return max(1, span - sum(pads) + draw(st.integers(0, 2 * stride + 1)))


@st.composite
def convolutions(draw: Callable) -> Drawn:
    """(x, w, b): odd and even sizes, stride beyond the filter, any padding, dilation, groups."""
    kh, kw, sh, sw, dh, dw = (draw(st.integers(1, most)) for most in (4, 4, 5, 5, 3, 3))
    pads = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(2))
    h, w = length(draw, kh, sh, pads[0], dh), length(draw, kw, sw, pads[1], dw)
    groups, c, o = (draw(st.integers(1, 3)) for _ in range(3))  # channels of one group: c in, o out
    shapes = ((draw(st.integers(1, 3)), h, w, groups * c), (kh, kw, c, groups * o), (groups * o,))
    options = {"stride": (sh, sw), "pad": pads, "dilation": (dh, dw), "groups": groups}
    return draw(drawn(st.just(shapes), **{name: st.just(value) for name, value in options.items()}))


@st.composite
def pools(draw: Callable, symmetric: bool = True) -> Drawn:
    """(x,): odd and even windows, stride beyond them, ceil; `symmetric` pads as PyTorch can: half a window at most."""
    kh, kw, sh, sw = (draw(st.integers(1, most)) for most in (4, 4, 5, 5))
    if symmetric:
        ph, pw = draw(st.integers(0, kh // 2)), draw(st.integers(0, kw // 2))
        pads = ((ph, ph), (pw, pw))
    else:  # any, as long as no window lies in the padding alone
        pads = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in (kh, kw))
    shape = (draw(st.integers(1, 3)), length(draw, kh, sh, pads[0]), length(draw, kw, sw, pads[1]), draw(channels))
    options = {"size": (kh, kw), "stride": (sh, sw), "pad": pads, "ceil": draw(st.booleans())}
    return draw(drawn(st.just((shape,)), **{name: st.just(value) for name, value in options.items()}))
