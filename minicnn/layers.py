"""Layers: what holds parameters and calls ops.

A Module's parameters are its Tensor attributes, its children its Module attributes, its buffers its array attributes,
in the order in which they were set; a name that starts with "_" belongs to none of them. Maps are (N, H, W, C).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from minicnn import device as devices
from minicnn import init, ops, random
from minicnn.autograd import Tensor


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array_interface__") or hasattr(value, "__cuda_array_interface__")


class Module:
    """A layer, or a network of layers: `forward` says what it computes, its attributes what it has learned.

    `training` is True until `eval()`: BatchNorm and Dropout behave differently then.
    `conv_bn_pairs` names convolutions whose result goes to a BatchNorm and nowhere else, as ("conv1", "bn1"): `fold`
    makes one layer of the two and leaves None as the BatchNorm, which `conv_bn_relu` understands.
    """

    training = True
    conv_bn_pairs: tuple[tuple[str, str], ...] = ()

    def forward(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.forward(*args, **options)

    # What it is made of

    def _attributes(self) -> Iterator[tuple[str, Any]]:
        return ((name, value) for name, value in vars(self).items() if not name.startswith("_"))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return ((name, value) for name, value in self._attributes() if isinstance(value, Module))

    def children(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module under `prefix`, then everything below it: ("layer1.0.conv1", Conv2d) and so on."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def _named(self, is_wanted: Any) -> Iterator[tuple[str, Any]]:
        for prefix, module in self.named_modules():
            for name, value in module._attributes():
                if is_wanted(value):
                    yield f"{prefix}.{name}" if prefix else name, value

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, parameter) of everything that is trained; a parameter shared by two layers comes once, first name."""
        seen: set[int] = set()
        for name, tensor in self._named(lambda value: isinstance(value, Tensor) and value.requires_grad):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, tensor

    def parameters(self) -> Iterator[Tensor]:
        return (tensor for _, tensor in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Any]]:
        """(name, raw array) of what is kept but not trained: the running statistics."""
        return self._named(_is_array)

    # Saving and loading

    def state_dict(self) -> dict[str, Any]:
        """Every parameter and buffer by name, as raw arrays in our layout (HWIO); not copies."""
        tensors = self._named(lambda value: isinstance(value, Tensor) or _is_array(value))
        return {name: value.data if isinstance(value, Tensor) else value for name, value in tensors}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Copy arrays into the parameters and buffers of the same names, casting to their dtype and device.

        Everything that does not fit is reported together in one ValueError, and nothing is changed then. With
        `strict=False` missing and unexpected names are left alone; a wrong shape is always an error.
        """
        own = self.state_dict()
        problems = [
            f"wrong shape: {name} is {tuple(state[name].shape)}, needs {tuple(own[name].shape)}"
            for name in own
            if name in state and tuple(state[name].shape) != tuple(own[name].shape)
        ]
        if strict:
            problems += [f"missing: {name}" for name in own if name not in state]
            problems += [f"unexpected: {name}" for name in state if name not in own]
        if problems:
            raise ValueError(f"load_state_dict: {type(self).__name__} does not fit the weights; " + "; ".join(problems))
        for name, array in own.items():
            if name in state:
                array[...] = devices.to(state[name], devices.of(array))

    # Modes

    def train(self, mode: bool = True) -> Module:
        """Put this module and everything below it into training mode; returns itself."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Put this module and everything below it into evaluation mode; returns itself."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for tensor in self.parameters():
            tensor.grad = None

    def to(self, device: str | None = None, dtype: Any = None) -> Module:
        """Move every parameter and buffer to a device ("cpu", "cuda") and/or a dtype, in place; returns itself."""

        def moved(array: Any) -> Any:
            array = array if dtype is None else array.astype(dtype, copy=False)
            return array if device is None else devices.to(array, device)

        for module in self.modules():
            for name, value in list(module._attributes()):
                if isinstance(value, Tensor):
                    value.data, value.grad = moved(value.data), None
                elif _is_array(value):
                    setattr(module, name, moved(value))
        return self

    def seed_dropout(self, seed: int) -> None:
        """Restart the masks of all dropout layers at step 0 of `seed`, each with a layer number of its own."""
        dropouts = (module for module in self.modules() if isinstance(module, Dropout))
        for layer, module in enumerate(dropouts, start=1):
            module.rng = random.Generator(seed, layer=layer)


@contextlib.contextmanager
def evaluation(model: Module) -> Iterator[None]:
    """Within the block the model is in evaluation mode; then each of its modules is in the mode it was in."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _parameter(*shape: int) -> Tensor:
    return Tensor(np.zeros(shape, np.float32), requires_grad=True)


class Sequential(Module):
    """Layers one after another, named "0", "1", … or by keyword.

    A ReLU that follows a Conv2d or a BatchNorm is computed together with it, in one pass.
    """

    def __init__(self, *layers: Module, **named: Module):
        for name, layer in {**{str(i): layer for i, layer in enumerate(layers)}, **named}.items():
            setattr(self, name, layer)

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int) -> Module:
        return list(self.children())[index]

    def forward(self, x: Tensor) -> Tensor:
        layers = list(self.children())
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, Conv2d | BatchNorm) and layers and isinstance(layers[0], ReLU):
                layers.pop(0)
                x = layer.relu(x)
            else:
                x = layer(x)
        return x


class Conv2d(Module):
    """A bank of `out_channels` filters that slide over the map: `ops.conv2d` with a weight (KH, KW, C/groups, O).

    Weights start from He's normal distribution, biases from 0. A convolution before a BatchNorm needs no bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int | tuple[int, int],
        *,
        stride: Any = 1,
        pad: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"Conv2d: groups={groups} must divide both {in_channels} and {out_channels} channels")
        kh, kw = (size, size) if isinstance(size, int) else size
        self.weight = init.he_normal(_parameter(kh, kw, in_channels // groups, out_channels))
        self.bias = _parameter(out_channels) if bias else None
        self.options = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(x, self.weight, self.bias, **self.options)

    def relu(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """relu(self(x) + residual) in one pass."""
        return ops.conv_relu(x, self.weight, self.bias, residual, **self.options)


class Linear(Module):
    """Every output sees every input: `ops.linear` with a weight (in, out).

    `from_map=(H, W, C)` says that the input is a flattened map: weights from elsewhere, which flatten (C, H, W),
    are reordered by it.
    """

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, from_map: tuple[int, int, int] | None = None
    ):
        if from_map is not None and from_map[0] * from_map[1] * from_map[2] != in_features:
            raise ValueError(f"Linear: a flattened map of {from_map} does not have {in_features} features")
        self.weight = init.he_normal(_parameter(in_features, out_features))
        self.bias = _parameter(out_features) if bias else None
        self.from_map = from_map

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)


class BatchNorm(Module):
    """Batch normalisation: each channel to mean 0 and variance 1, then scaled by `weight`, γ, and shifted by `bias`, β.

    In training the batch's statistics are used and averaged into `running_mean` and `running_var` (with weight
    `momentum` for the new batch); in evaluation those are used.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1):
        self.weight = init.constant(_parameter(channels), 1.0)
        self.bias = _parameter(channels)
        self.running_mean = np.zeros(channels, np.float32)
        self.running_var = np.ones(channels, np.float32)
        self.eps, self.momentum = eps, momentum

    def _options(self) -> dict[str, Any]:
        running = (self.running_mean, self.running_var)
        return {"running": running, "momentum": self.momentum, "eps": self.eps, "training": self.training}

    def forward(self, x: Tensor) -> Tensor:
        return ops.batch_norm(x, self.weight, self.bias, **self._options())

    def relu(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """relu(self(x) + residual) in one pass."""
        return ops.bn_relu(x, self.weight, self.bias, residual, **self._options())


def conv_bn_relu(x: Tensor, conv: Conv2d, bn: BatchNorm | None, residual: Tensor | None = None) -> Tensor:
    """relu(bn(conv(x)) + residual) in as few passes as it takes; without `bn`, as once it is folded, in one.

    A Module that computes this names the pair in its `conv_bn_pairs`.
    """
    return conv.relu(x, residual) if bn is None else bn.relu(conv(x), residual)


class LRN(Module):
    """Local response normalisation across channels (`ops.lrn`); `alpha` multiplies the paper's sum, not the mean."""

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0):
        self.options = {"size": size, "alpha": alpha, "beta": beta, "k": k}

    def forward(self, x: Tensor) -> Tensor:
        return ops.lrn(x, **self.options)


class LCN(Module):
    """Local contrast normalisation over a Gaussian window and all maps (`ops.lcn`)."""

    def __init__(self, size: int = 9):
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return ops.lcn(x, size=self.size)


class MaxPool(Module):
    """The largest value of each window (`ops.max_pool`); `stride` None means the window's size."""

    def __init__(self, size: Any, stride: Any = None, pad: Any = 0, ceil: bool = False):
        self.size, self.options = size, {"stride": stride, "pad": pad, "ceil": ceil}

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool(x, self.size, **self.options)


class AvgPool(Module):
    """The mean of each window (`ops.avg_pool`); `stride` None means the window's size."""

    def __init__(self, size: Any, stride: Any = None, pad: Any = 0, ceil: bool = False, count_pad: bool = False):
        self.size, self.options = size, {"stride": stride, "pad": pad, "ceil": ceil, "count_pad": count_pad}

    def forward(self, x: Tensor) -> Tensor:
        return ops.avg_pool(x, self.size, **self.options)


class GlobalAvgPool(Module):
    """The mean of each channel over the whole map: (N, H, W, C) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.global_avg_pool(x)


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.tanh(x)


class Flatten(Module):
    """(N, H, W, C) to (N, H·W·C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten()


class Dropout(Module):
    """In training, zero each value with probability `p` and scale the others by 1 / (1 - p); the identity otherwise.

    `rng` is a `minicnn.Generator`; by default each layer gets one of its own from the seed in force.
    """

    def __init__(self, p: float = 0.5, rng: random.Generator | None = None):
        self.p, self.rng = p, rng or random.next_generator()

    def forward(self, x: Tensor) -> Tensor:
        return ops.dropout(x, self.p, rng=self.rng, training=self.training)


class Concat(Module):
    """Run each branch on the same input and lay their channels side by side, as an Inception module does."""

    def __init__(self, *branches: Module, **named: Module):
        for name, branch in {**{str(i): branch for i, branch in enumerate(branches)}, **named}.items():
            setattr(self, name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return ops.concat(*(branch(x) for branch in self.children()))


class Residual(Module):
    """body(x) + shortcut(x): the body learns what to add. Without `shortcut` x itself is added."""

    def __init__(self, body: Module, shortcut: Module | None = None):
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))
