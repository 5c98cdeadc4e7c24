"""Optimisers: how a gradient becomes a step. The arithmetic is in the `*_update` kernels, one pass over each parameter.

`params` is an iterable of Tensors, or of groups: dicts with "params" and, by option, "weight_decay" and "lr_scale". A
parameter without a gradient is left alone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

import kernels
from kernels import array_module
from minicnn.autograd import Tensor
from minicnn.layers import BatchNorm, Conv2d, Module

Array = Any
Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]


class Optimiser:
    """What all optimisers share: groups of parameters, a learning rate that may be set at any time, a state to save.

    A subclass names the arrays it keeps for each parameter in `slots` and says in `update` what a step does.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, params: Parameters, lr: float, weight_decay: float = 0.0):
        if not lr >= 0:
            raise ValueError(f"{type(self).__name__}: lr must be a number of at least 0, got {lr}")
        self.lr, self.steps = float(lr), 0
        self._parameters: list[tuple[Tensor, float, float]] = []  # with its weight decay and its scale of lr
        for group in params:
            group = {"params": [group]} if isinstance(group, Tensor) else group
            if unknown := sorted(set(group) - {"params", "weight_decay", "lr_scale"}):
                raise ValueError(f"{type(self).__name__}: a group has params, weight_decay, lr_scale, not {unknown[0]}")
            decay, scale = group.get("weight_decay", weight_decay), group.get("lr_scale", 1.0)
            self._parameters += [(p, float(decay), float(scale)) for p in group["params"]]
        if not self._parameters:
            raise ValueError(f"{type(self).__name__}: there are no parameters to train")
        if len({id(p) for p, _, _ in self._parameters}) < len(self._parameters):
            raise ValueError(f"{type(self).__name__}: a parameter is given twice")
        self._state = [
            {slot: array_module(p.data).zeros_like(p.data) for slot in self.slots} for p, _, _ in self._parameters
        ]

    def step(self, factor: Array | None = None) -> None:
        """Change every parameter by its gradient, or by its gradient times `factor`, an array () in float32.

        Where the factor is 0 nothing changes. On a device the host does not know whether it is; `steps` counts on.
        """
        self.steps += 1
        k = kernels.of(self._parameters[0][0].data)
        with k.together():
            for (p, decay, scale), state in zip(self._parameters, self._state, strict=True):
                if p.grad is not None:
                    rates = {"lr": self.lr * scale, "weight_decay": decay}
                    self.update(k, p.data, p.grad, state, **rates, factor=factor)

    def update(self, k: Any, w: Array, g: Array, state: dict[str, Array], **options: Any) -> None:
        """`w` and its `state` by a kernel of `k`; the options are lr, weight_decay and factor."""
        raise NotImplementedError(f"{type(self).__name__} defines no update")

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p, _, _ in self._parameters:
            p.grad = None

    def state_dict(self) -> dict[str, Array]:
        """The number of steps and every array kept, by parameter number and slot: {"steps": ..., "0.velocity": ...}."""
        arrays = {f"{i}.{slot}": a for i, state in enumerate(self._state) for slot, a in state.items()}
        return {"steps": array_module(self._parameters[0][0].data).asarray(self.steps), **arrays}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Go on from a saved state; ValueError if it is that of another optimiser or network."""
        own = self.state_dict()
        wrong = sorted(set(own) ^ set(state)) or [name for name in own if own[name].shape != state[name].shape]
        if wrong:
            raise ValueError(
                f"{type(self).__name__}: the saved state is of another optimiser or network: {wrong[0]} differs"
            )
        self.steps = int(state["steps"])
        for name, array in own.items():
            if name != "steps":
                array[...] = array_module(array).asarray(state[name])


class SGD(Optimiser):
    """Stochastic gradient descent: v = m·v + g, w −= lr·v; with `nesterov` w −= lr·(g + m·v). g includes the decay."""

    def __init__(
        self,
        params: Parameters,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ):
        if nesterov and not momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0")
        self.momentum, self.nesterov = momentum, nesterov
        self.slots = ("velocity",) if momentum else ()
        super().__init__(params, lr, weight_decay)

    def update(self, k: Any, w: Array, g: Array, state: dict[str, Array], **options: Any) -> None:
        k.sgd_update(w, g, state.get("velocity"), momentum=self.momentum, nesterov=self.nesterov, **options)


class RMSProp(Optimiser):
    """Divide each gradient by its recent size; `eps_inside` puts eps under the root, as Inception-v3's recipe does."""

    def __init__(
        self,
        params: Parameters,
        lr: float,
        decay: float = 0.9,
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        eps_inside: bool = False,
    ):
        self.options = {"decay": decay, "eps": eps, "momentum": momentum, "eps_inside": eps_inside}
        self.slots = ("square", "velocity") if momentum else ("square",)
        super().__init__(params, lr, weight_decay)

    def update(self, k: Any, w: Array, g: Array, state: dict[str, Array], **options: Any) -> None:
        k.rmsprop_update(w, g, state["square"], state.get("velocity"), **self.options, **options)


class Adam(Optimiser):
    """Step by the running mean of the gradient, over the root of that of its square (Kingma and Ba, arXiv:1412.6980).

    The weight decay is added to the gradient.
    """

    slots = ("m", "v")
    decoupled = False

    def __init__(
        self,
        params: Parameters,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        self.options = {"beta1": betas[0], "beta2": betas[1], "eps": eps, "decoupled": self.decoupled}
        super().__init__(params, lr, weight_decay)

    def update(self, k: Any, w: Array, g: Array, state: dict[str, Array], **options: Any) -> None:
        k.adam_update(w, g, state["m"], state["v"], step=self.steps, **self.options, **options)


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights directly instead of passing through the running means."""

    decoupled = True

    def __init__(
        self,
        params: Parameters,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)


def decay_groups(model: Module, weight_decay: float, *, norm_and_bias: bool = False) -> list[dict[str, Any]]:
    """Groups for an optimiser: convolution and linear weights decay; BatchNorm's γ and β and biases by option only."""
    exempt = {
        id(tensor)
        for module in model.modules()
        for name, tensor in vars(module).items()
        if isinstance(tensor, Tensor) and (isinstance(module, BatchNorm) or name == "bias")
    }
    decayed = [p for p in model.parameters() if norm_and_bias or id(p) not in exempt]
    others = [p for p in model.parameters() if not norm_and_bias and id(p) in exempt]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def clip_grad_norm(params: Iterable[Tensor], max_norm: float) -> Any:
    """Scale all gradients together so that their joint 2-norm is at most `max_norm`; returns the norm before.

    Gradients whose norm is infinite or NaN stay as they are: to scale them would hide what went wrong. The norm is a
    0-d array on a device, which nobody waits for.
    """
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        return 0.0
    xp = array_module(grads[0])
    norm = xp.sqrt(kernels.of(grads[0]).square_sum(*grads))
    if xp is np:
        norm = float(norm)
        if max_norm < norm < math.inf:
            for g in grads:
                g *= max_norm / norm
        return norm
    factor = xp.where((max_norm < norm) & (norm < math.inf), max_norm / norm, 1.0)
    for g in grads:
        g *= factor.astype(g.dtype)
    return norm


def clip_grad_value(params: Iterable[Tensor], limit: float) -> None:
    """Clip every element of every gradient to [−limit, limit]."""
    for p in params:
        if p.grad is not None:
            p.grad.clip(-limit, limit, out=p.grad)


def clip_filter_rms(model: Module, limit: float) -> None:
    """Scale each convolution filter whose root mean square is above `limit` down to it: a step's last act in ZFNet.

    A filter is all that makes one output channel, (KH, KW, C) of the weight (KH, KW, C, O). NaN and Inf stay visible.
    Source: Zeiler & Fergus 2013, arXiv 1311.2901, section 3: 0.1, without which a few filters of the first layer
    dominate; that is for pixels in [−128, 128].
    """
    for module in model.modules():
        if isinstance(module, Conv2d) and module.weight.requires_grad:
            w = module.weight.data
            xp = array_module(w)
            rms = xp.sqrt((w * w).mean(axis=(0, 1, 2)))  # (O,)
            w *= (limit / xp.maximum(rms, limit)).astype(w.dtype)


class EMA:
    """A second set of weights that follows the trained ones slowly: average = d·average + (1 − d)·w after every step.

    Running statistics of BatchNorm are averaged like weights. Early on, d is at most (1 + t) / (10 + t) at step t, so
    that the average forgets the random start.
    """

    def __init__(self, model: Module, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"EMA: decay must be at least 0 and below 1, got {decay}")
        self.model, self.decay, self.updates = model, decay, 0
        self.averages = {name: array.copy() for name, array in model.state_dict().items()}

    def weight_of_old(self) -> float:
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    def update(self) -> None:
        """Take the current weights into the average."""
        decay = self.weight_of_old()
        self.updates += 1
        state = self.model.state_dict()
        k = kernels.of(next(iter(state.values())))
        with k.together():
            for name, array in state.items():
                k.ema_update(self.averages[name], array, decay=decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model has the averaged weights; afterwards its own again, to train on with."""
        own = {name: array.copy() for name, array in self.model.state_dict().items()}
        self.model.load_state_dict(self.averages)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def state_dict(self) -> dict[str, Array]:
        """The number of updates and the averaged weights."""
        some = next(iter(self.averages.values()))
        return {"updates": array_module(some).asarray(self.updates), **self.averages}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Go on from a saved average; ValueError if it is that of another network."""
        shapes = {name: array.shape for name, array in self.averages.items()}
        if {
            name: array.shape for name, array in state.items() if name != "updates"
        } != shapes or "updates" not in state:
            raise ValueError(f"{type(self).__name__}: the saved average is of another network")
        self.updates = int(state["updates"])
        for name, array in self.averages.items():
            array[...] = array_module(array).asarray(state[name])


class Polyak(EMA):
    """The plain mean of the weights over all steps so far (Polyak and Juditsky 1992), as GoogLeNet's final model."""

    def __init__(self, model: Module):
        super().__init__(model, 0.0)

    def weight_of_old(self) -> float:
        return self.updates / (self.updates + 1)
