"""The network of a run folder or weights file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from minicnn import checkpoint, interop, models
from minicnn.data import Dataset


def load(path: str | Path, model: str | None = None, dataset: Dataset | None = None) -> models.Model:
    """The network of a run folder or weights file, in evaluation mode.

    A file of ours says which network it is; for one from elsewhere `model` says it, and `dataset` its classes and
    channels. Raises ValueError where it cannot be read or does not fit.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "last.safetensors"
        if not path.exists():
            raise ValueError(f"{path.parent}: is no run folder, it has no last.safetensors")
    if model is None:
        arrays, metadata = interop.read(path) if path.suffix in interop.PICKLED else checkpoint.read(path)
        if "model" not in metadata:
            raise ValueError(f"{path}: does not say which network it is of; say it with --model")
        network = models.build(**json.loads(metadata["model"]))
        network.load_state_dict(averaged(arrays))
    else:
        sizes = {"num_classes": dataset.num_classes, "in_channels": dataset.channels} if dataset else {}
        network = models.build(model, **sizes)
        interop.load_torch(network, path)
    network.eval()
    return network


def averaged(arrays: dict[str, Any]) -> dict[str, Any]:
    """The weights that count: the averaged ones, where training kept such."""
    average = checkpoint.part(arrays, "average")
    average.pop("updates", None)
    return average or checkpoint.part(arrays)


def metadata(path: str | Path) -> dict[str, str]:
    """What a weights file says of itself; nothing for a run folder, or for PyTorch's own files."""
    path = Path(path)
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def normalised_for(path: str | Path, dataset: Dataset) -> Dataset:
    """The data set with the mean and deviation that weights were trained with, where their file says so, or itself.

    Files of `python -m minicnn.weights get` do; a run's images are normalised by its own data set.
    """
    says = metadata(path)
    given: dict[str, Any] = {key: np.array(json.loads(says[key]), np.float32) for key in ("mean", "std") if key in says}
    if any(array.shape != (dataset.channels,) for array in given.values()):
        raise ValueError(f"{path}: its mean and std are not those of {dataset.channels} channels")
    return replace(dataset, **given)
