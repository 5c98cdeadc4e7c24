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


def load_torch(model: Module, weights: str | Path | Mapping[str, Any], strict: bool = True) -> None:
    """Load weights by their PyTorch names: a `.safetensors` file, or a state dict of NumPy arrays or torch tensors.

    A prefix `module.` is dropped, a last layer may be called `linear` or `fc`, and `num_batches_tracked` is ignored.
    A file that says of itself `format=minicnn` is in our layout already. Everything that does not fit is reported
    together in one ValueError, as by `Module.load_state_dict`; so is a file that cannot be used.
    """
    if isinstance(weights, Mapping):
        source, state = "state dict", _from_torch(model, weights)
    else:
        source, state = str(weights), _read(model, Path(weights))
    try:
        model.load_state_dict(state, strict)
    except ValueError as error:
        raise ValueError(f"{source}: {str(error).removeprefix('load_state_dict: ')}") from None


def _read(model: Module, path: Path) -> dict[str, np.ndarray]:
    if path.suffix in (".pth", ".pt"):
        raise ValueError(
            f"{path}: pickled weights are not read, for a pickle can run code; convert them in PyTorch with "
            f"safetensors.torch.save_file(torch.load({path.name!r}, weights_only=True), {path.stem + '.safetensors'!r})"
        )
    arrays, metadata = checkpoint.read_safetensors(path)
    return checkpoint.part(arrays) if checkpoint.is_ours(metadata) else _from_torch(model, arrays)


def _is_weight(name: str) -> bool:
    return name.rpartition(".")[2] == "weight"


def _from_torch(model: Module, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The entries of a PyTorch state dict under the model's names and in our layout.

    Arrays of a shape that cannot be meant are passed on as they are: `load_state_dict` reports them with all the rest.
    """
    layers = dict(model.named_modules())

    def renamed(name: str) -> str:
        name = name.removeprefix("module.")
        layer, _, attribute = name.rpartition(".")
        other = {"linear": "fc", "fc": "linear"}.get(layer)
        return f"{other}.{attribute}" if layer not in layers and other in layers else name

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

    names = {renamed(name): value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    return {name: converted(name, value) for name, value in names.items()}


def to_torch(model: Module) -> dict[str, np.ndarray]:
    """The state dict in PyTorch's layout and names, as new NumPy arrays: what `load_torch` reads."""
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
