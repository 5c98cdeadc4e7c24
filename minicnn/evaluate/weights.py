"""The network of a run folder or weights file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import checkpoint, interop, models
from minicnn.data import Dataset


def load(path: str | Path, model: str | None = None, dataset: Dataset | None = None) -> models.Model:
    """The network of a run folder or weights file, in evaluation mode.

    A file of ours says which network it is; for one from elsewhere `model` says it, and `dataset` its classes and
    channels. Raises ValueError where it cannot be read or does not fit.
    """
    path = weights_file(path)
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


def weights_file(path: str | Path) -> Path:
    """The file of weights at a path: of a run folder its last one; ValueError for a folder that is none."""
    path = Path(path)
    if not path.is_dir():
        return path
    if not (path / "last.safetensors").exists():
        raise ValueError(f"{path}: is no run folder, it has no last.safetensors")
    return path / "last.safetensors"


def configuration(path: Path) -> dict[str, Any]:
    """What a run was configured with, by its folder or a file in it; nothing for weights from elsewhere."""
    config = (path if path.is_dir() else path.parent) / "config.json"
    return json.loads(config.read_text("utf-8")) if config.exists() else {}


def averaged(arrays: dict[str, Any]) -> dict[str, Any]:
    """The weights that count: the averaged ones, where training kept such."""
    average = checkpoint.part(arrays, "average")
    average.pop("updates", None)
    return average or checkpoint.part(arrays)


def metadata(path: str | Path) -> dict[str, str]:
    """What a weights file says of itself; nothing for a run folder, or for PyTorch's own files."""
    path = Path(path)
    return checkpoint.read_metadata(path) if path.suffix == ".safetensors" and path.is_file() else {}


def normalised_for(path: str | Path, dataset: Dataset) -> Dataset:
    """The data set with the mean and deviation that weights were trained with, where their file says so, or itself.

    Files of `python -m minicnn.weights get` do; a run's images are normalised by its own data set.
    """
    says = metadata(path)
    given: dict[str, Any] = {key: np.array(json.loads(says[key]), np.float32) for key in ("mean", "std") if key in says}
    if any(array.shape != (dataset.channels,) for array in given.values()):
        raise ValueError(f"{path}: its mean and std are not those of {dataset.channels} channels")
    return replace(dataset, **given)
