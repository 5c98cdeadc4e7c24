"""Weights and arrays from elsewhere: the one place where PyTorch's layouts, NCHW and OIHW, are known.

A convolution's weight is (O, C, KH, KW) there and (KH, KW, C, O) here; a linear weight (out, in) there and (in, out)
here. A linear layer on a flattened map moreover counts its inputs in the order C, H, W there and H, W, C here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import checkpoint, device
from minicnn.autograd import Tensor
from minicnn.layers import Conv2d, Linear, Module

PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # PyTorch's own files; resnet20.pth.tar is one
WRAPPERS = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, Lightning


def load_torch(model: Module, weights: str | Path | Mapping[str, Any], strict: bool = True) -> None:
    """Load weights by their PyTorch names: a `.safetensors` or `.pth` file, or a dict of NumPy arrays or torch tensors.

    A prefix `module.` is dropped, a last layer may be called `linear` or `fc`, and `num_batches_tracked` is ignored.
    A file that says of itself `format=minicnn` is in our layout already. Everything that does not fit is reported
    together in one ValueError, as by `Module.load_state_dict`; so is a file that cannot be used. A `.pth` is read by
    `minicnn.pth`, which runs nothing that stands in it.
    """
    if isinstance(weights, Mapping):
        source, state = "state dict", from_torch(model, weights)
    else:
        source, (arrays, metadata) = str(weights), read(weights)
        state = arrays if checkpoint.is_ours(metadata) else from_torch(model, arrays)
    try:
        model.load_state_dict(state, strict)
    except ValueError as error:
        raise ValueError(f"{source}: {str(error).removeprefix('load_state_dict: ')}") from None


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(weights, metadata) of a file of ours or of PyTorch's, in its own layout; `checkpoint.is_ours` says whose it is.

    ValueError, in one line, for a file that is missing, damaged, or asks for more than weights.
    """
    path = Path(path)
    if path.suffix in PICKLED:
        from minicnn import pth  # which needs minicnn.data

        return pth.state_dict(path), {}
    arrays, metadata = checkpoint.read_safetensors(path)
    return checkpoint.part(arrays) if checkpoint.is_ours(metadata) else arrays, metadata


def _is_weight(name: str) -> bool:
    return name.rpartition(".")[2] == "weight"


def _unwrapped(name: str, children: set[str]) -> str:
    """A name without what PyTorch's wrappers have put before it, unless a child of the model is called so."""
    while wrapper := next((w for w in WRAPPERS if name.startswith(w) and w[:-1] not in children), ""):
        name = name.removeprefix(wrapper)
    return name


def from_torch(model: Module, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The entries of a PyTorch state dict under the model's names and in our layout.

    Arrays of a shape that cannot be meant are passed on as they are: `load_state_dict` reports them with all the rest.
    """
    return laid_out(model, renamed(model, state))


def renamed(model: Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """A PyTorch state dict under the names that the model has for its entries, in PyTorch's layout still."""
    layers = dict(model.named_modules())
    children = {name for name, _ in model.named_children()}

    def new(name: str) -> str:
        name = _unwrapped(name, children)
        layer, _, attribute = name.rpartition(".")
        other = {"linear": "fc", "fc": "linear"}.get(layer)
        return f"{other}.{attribute}" if layer not in layers and other in layers else name

    return {new(name): value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def laid_out(model: Module, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a state dict, by the names of the model's layers, from PyTorch's layout to ours."""
    layers = dict(model.named_modules())

    def converted(name: str, value: Any) -> np.ndarray:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        layer = layers.get(name.rpartition(".")[0])
        if _is_weight(name) and isinstance(layer, Conv2d) and array.ndim == 4:
            return array.transpose(2, 3, 1, 0)  # OIHW -> HWIO
        if _is_weight(name) and isinstance(layer, Linear) and array.ndim == 2:
            array = array.T
            if layer.from_map is not None and len(array) == len(layer.weight):  # (C·H·W, out) -> (H·W·C, out)
                h, w, c = layer.from_map
                return array.reshape(c, h, w, -1).transpose(1, 2, 0, 3).reshape(array.shape)
        return array

    return {name: converted(name, value) for name, value in state.items()}


def to_torch(model: Module) -> dict[str, np.ndarray]:
    """The state dict in PyTorch's layout and names, as new NumPy arrays: what `load_torch` reads.

    `network.load_state_dict({name: torch.from_numpy(a) for name, a in to_torch(model).items()})` takes it in PyTorch.
    """
    layers = dict(model.named_modules())

    def converted(name: str, array: Any) -> np.ndarray:
        array, layer = device.to(array, "cpu"), layers[name.rpartition(".")[0]]
        if _is_weight(name) and isinstance(layer, Conv2d):
            array = array.transpose(3, 2, 0, 1)  # HWIO -> OIHW
        elif _is_weight(name) and isinstance(layer, Linear):
            if layer.from_map is not None:  # (H·W·C, out) -> (C·H·W, out)
                array = array.reshape(*layer.from_map, -1).transpose(2, 0, 1, 3).reshape(array.shape)
            array = array.T
        return np.array(array, order="C")

    return {name: converted(name, array) for name, array in model.state_dict().items()}


def from_dlpack(array: Any) -> Tensor:
    """A Tensor on the memory of another library's array, on the CPU or a CUDA device; nothing is copied.

    Axes stay as they are: images of PyTorch's need `.transpose(0, 2, 3, 1)` to become (N, H, W, C).
    """
    kind, _ = array.__dlpack_device__()
    if kind != 2:  # DLPack's number for CUDA
        return Tensor(np.from_dlpack(array))
    import cupy

    return Tensor(cupy.from_dlpack(array))
