"""How many bits a training step computes with: `--precision fp32`, `tf32` or `fp16`.

fp32   float32 throughout
tf32   the same arrays; matrix products round their factors to 10 bits of mantissa and add up in float32
fp16   maps, and the weights that multiply them, are float16, half the bytes; weights are trained in float32 all the
       same, as are the parameters and the statistics of BatchNorm; all sums are taken in float32

The last two are for tensor cores: of CUDA devices alone. Networks are evaluated with their weights in float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

import kernels
from kernels import array_module
from minicnn import Tensor, device, ops, optim
from minicnn.layers import BatchNorm, Module

Array = Any
Outputs = Tensor | tuple[Tensor, ...]


class Single:
    """fp32 and tf32: a step as it is written."""

    maps: type = np.float32  # of the images, and of all maps that are made of them

    def __init__(self, model: Module):
        self.model = model

    def working(self) -> contextlib.AbstractContextManager[None]:
        """Within the block the model has the weights that it computes with."""
        return contextlib.nullcontext()

    def scores(self, outputs: Outputs) -> Outputs:
        """What the network returned, as the loss takes it."""
        return outputs

    def upstream(self, loss: Tensor) -> Array | None:
        """What `loss.backward` begins with; None for 1."""
        return None

    def factor(self, max_norm: float) -> Array | None:
        """Clip the gradients to a joint norm, if that is not 0; what the optimiser has still to multiply them with."""
        if max_norm:
            optim.clip_grad_norm(self.model.parameters(), max_norm)
        return None

    def figures(self) -> dict[str, float]:
        """What is to be told of the training so far."""
        return {}

    def problem(self) -> str | None:
        """Why training cannot go on."""
        return None

    def state_dict(self) -> dict[str, Array]:
        return {}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        if state:
            raise ValueError("the checkpoint has a loss scale: it is that of a run with --precision fp16")


class Half(Single):
    """fp16: mixed precision with a dynamic loss scale (Micikevicius et al. 2018, arXiv:1710.03740).

    In every step the weights are rounded to copies in float16, with which the model computes; gradients in float16 then
    change the weights in float32, where a step can be smaller than the last bit of a half.
    """

    maps = np.float16

    def __init__(self, model: Module):
        super().__init__(model)
        norms = {id(p) for module in model.modules() if isinstance(module, BatchNorm) for p in module.parameters()}
        self.copies = [(p, p.data.astype(np.float16)) for p in model.parameters() if id(p) not in norms]
        self.scale = LossScale(array_module(self.copies[0][1]))

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        weights = [p.data for p, _ in self.copies]
        k = kernels.of(weights[0])
        with k.together():
            for p, copy in self.copies:
                k.cast_update(copy, p.data)
        try:
            for p, copy in self.copies:
                p.data = copy
            yield
        finally:
            for (p, _), w in zip(self.copies, weights, strict=True):
                p.data = w

    def scores(self, outputs: Outputs) -> Outputs:
        """In float32: the loss and its first gradient are small sums of large terms."""
        if isinstance(outputs, tuple):
            return tuple(ops.cast(logits, dtype=np.float32) for logits in outputs)
        return ops.cast(outputs, dtype=np.float32)

    def upstream(self, loss: Tensor) -> Array | None:
        return self.scale.value

    def factor(self, max_norm: float) -> Array | None:
        return self.scale.factor((p.grad for p in self.model.parameters() if p.grad is not None), max_norm)

    def figures(self) -> dict[str, float]:
        return {"loss_scale": float(self.scale.value), "skipped_steps": int(self.scale.skipped)}

    def problem(self) -> str | None:
        if float(self.scale.value) > LossScale.LEAST:
            return None
        return f"gradients are NaN or Inf even of a loss scaled by {LossScale.LEAST:g}"

    def state_dict(self) -> dict[str, Array]:
        return self.scale.state_dict()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        self.scale.load_state_dict(state)


class LossScale:
    """What the loss is multiplied with, so that small gradients do not vanish in float16; as large as may be.

    A step whose gradients overflow, to Inf or NaN, is skipped, and the scale halved; after PATIENCE good steps in
    succession it is doubled. All that is decided where the gradients are: the host waits for none of it.
    """

    FIRST, LEAST, PATIENCE = 2.0**16, 2.0**-14, 2000

    def __init__(self, xp: Any):
        self._xp = xp
        self.value = xp.full((), self.FIRST, np.float32)
        self.good = xp.zeros((), np.int32)  # steps since the scale has changed
        self.skipped = xp.zeros((), np.int32)

    def factor(self, grads: Iterable[Array], max_norm: float = 0.0) -> Array:
        """What makes a step of scaled gradients, clipped to a joint norm if that is not 0: (), 0 to skip the step.

        To be called once a step: the scale of the next one follows from it.
        """
        xp, scaled = self._xp, list(grads)
        norm = xp.sqrt(kernels.of(scaled[0]).square_sum(*scaled)) / self.value
        finite = xp.isfinite(norm)
        clip = xp.where(norm > max_norm, max_norm / norm, 1.0) if max_norm else 1.0
        factor = xp.where(finite, clip / self.value, 0.0).astype(np.float32)

        good = xp.where(finite, self.good + 1, 0)
        grows = good == self.PATIENCE
        change = xp.where(finite, xp.where(grows, 2.0, 1.0), 0.5)
        self.value = xp.maximum(self.value * change, self.LEAST).astype(np.float32)
        self.good = xp.where(grows, 0, good).astype(np.int32)
        self.skipped = self.skipped + ~finite
        return factor

    def state_dict(self) -> dict[str, Array]:
        return {"scale": self.value, "good": self.good, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Go on from a saved scale; ValueError where there is none."""
        own = self.state_dict()
        if state.keys() != own.keys():
            raise ValueError("the checkpoint has no loss scale: it is not that of a run with --precision fp16")
        new = (self._xp.asarray(state[name], dtype=array.dtype) for name, array in own.items())
        self.value, self.good, self.skipped = new


def choose(name: str, on: str) -> type[Single]:
    """The precision of that name, ready to be used on a device; ValueError in one line where that has no such thing."""
    if on == "cuda":
        device.use_tf32(name == "tf32")
    elif name != "fp32":
        raise ValueError(
            f"--precision {name}: needs a CUDA device, and this run is on the {on.upper()}; use fp32 there"
        )
    return Half if name == "fp16" else Single
