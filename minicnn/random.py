"""Where every random number of minicnn comes from: one seed, and counters instead of hidden state.

Weights are drawn from NumPy's generator; dropout masks come from a counter-based generator (`kernels.dropout`), so that
the mask of a step depends on (seed, layer, step) alone and not on the number of threads or on the device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Key(NamedTuple):
    """What one dropout mask depends on, besides the position of the element in its array."""

    seed: int
    layer: int
    step: int


class Generator:
    """A source of masks for one layer: `draw()` returns the key of this step's mask and goes on to the next step.

    `seed` is 0 <= seed < 2**64, `layer` tells apart layers that share the seed, `step` counts the draws;
    each of `layer` and `step` is below 2**32. `state()` and `set_state(...)` save and restore the position.
    """

    def __init__(self, seed: int = 0, layer: int = 0, step: int = 0):
        if not 0 <= seed < 2**64:
            raise ValueError(f"Generator: seed must be between 0 and 2**64 - 1, got {seed}")
        self.seed, self.layer, self.step = int(seed), int(layer), int(step)

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed}, layer={self.layer}, step={self.step})"

    def draw(self) -> Key:
        key = Key(self.seed, self.layer, self.step)
        self.step += 1
        return key

    def state(self) -> dict[str, int]:
        return {"seed": self.seed, "layer": self.layer, "step": self.step}

    def set_state(self, state: dict[str, int]) -> None:
        self.seed, self.layer, self.step = int(state["seed"]), int(state["layer"]), int(state["step"])


class _Source:
    """The seed in force, the NumPy generator that draws weights, and the number of dropout layers made so far."""

    def __init__(self, value: int):
        self.seed, self.weights, self.layers = value, np.random.default_rng(value), 0


_source = _Source(0)


def seed(value: int) -> None:
    """Start anew: weights drawn and dropout layers made from here on depend on `value` and on their order alone."""
    global _source
    _source = _Source(value)


def weights() -> np.random.Generator:
    """The generator that initialises weights; `minicnn.seed` restarts it."""
    return _source.weights


def next_generator() -> Generator:
    """A Generator for the next dropout layer: the seed in force, a layer number of its own."""
    _source.layers += 1
    return Generator(_source.seed, layer=_source.layers)
