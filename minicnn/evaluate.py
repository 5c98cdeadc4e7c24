"""The command `python -m minicnn.evaluate`: how good a trained network is, and what it takes for what."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import Tensor, _cli, checkpoint, data, device, interop, models, no_grad
from minicnn.data import Dataset, Loader, augment

WORST = 5  # confusions and classes that are listed


def load(path: str | Path, model: str | None = None, dataset: Dataset | None = None) -> models.Model:
    """The network of a run folder or weights file, ready to be evaluated.

    A file of ours says which network it is; for one from elsewhere `model` says it, and `dataset` its classes and
    channels. Raises ValueError where it cannot be read or does not fit.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "last.safetensors"
        if not path.exists():
            raise ValueError(f"{path.parent}: is no run folder, it has no last.safetensors")
    if model is None:
        arrays, metadata = checkpoint.read(path)
        network = models.build(**json.loads(metadata["model"]))
        network.load_state_dict(averaged(arrays))
    else:
        sizes = {"num_classes": dataset.num_classes, "in_channels": dataset.channels} if dataset else {}
        network = models.build(model, **sizes)
        interop.load_torch(network, path)
    return network.eval()


def averaged(arrays: dict[str, Any]) -> dict[str, Any]:
    """The weights that count: the averaged ones, where training kept such."""
    average = checkpoint.part(arrays, "average")
    average.pop("updates", None)
    return average or checkpoint.part(arrays)


def scores(network: models.Model, dataset: Dataset, *, batch_size: int = 250, on: str = "cpu") -> np.ndarray:
    """The network's logits for every image, in order: float32 (N, classes)."""
    size = network.image_size
    crop = augment.parse(f"centre-crop:{size}") if dataset.image_size > size else None
    loader = Loader(dataset, min(batch_size, len(dataset)), augment=crop, shuffle=False)
    with no_grad():
        return np.concatenate([network(Tensor(device.to(images, on))).numpy() for images, _ in loader])


def report(logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> str:
    """Top-1, top-5, accuracy by class and the most frequent confusions, as text."""
    order = np.argsort(-logits, axis=1, kind="stable")
    top1, lines = order[:, 0], []
    for k in (1, 5):
        if k < logits.shape[1]:
            right = int((order[:, :k] == labels[:, None]).any(axis=1).sum())
            lines.append(f"top-{k} accuracy {right / len(labels):.4f} ({right} of {len(labels)})")
    confusion = np.zeros((logits.shape[1], logits.shape[1]), int)  # [true class, said class]
    np.add.at(confusion, (labels, top1), 1)

    width = max(map(len, classes))
    by_class = [(confusion[i, i] / confusion[i].sum(), name) for i, name in enumerate(classes) if confusion[i].sum()]
    lines += ["", "accuracy by class, lowest first:"]
    lines += [f"  {name:{width}}  {accuracy:.3f}" for accuracy, name in sorted(by_class)[: 2 * WORST]]
    wrong = confusion - np.diag(np.diag(confusion))
    pairs = sorted(((n, i, j) for (i, j), n in np.ndenumerate(wrong) if n), key=lambda p: (-p[0], p[1], p[2]))
    lines += ["", "most frequent confusions:"]
    lines += [f"  {n:4} × {classes[i]} taken for {classes[j]}" for n, i, j in pairs[:WORST]]
    return "\n".join(lines)


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    p = _cli.Parser(prog="python -m minicnn.evaluate", description="Evaluate a trained network.")
    p.add_argument("weights", metavar="RUN|WEIGHTS", help="a run folder, or a .safetensors file")
    p.add_argument("--data", help="a data set as for minicnn.train (default: the run's own, else bundled)")
    p.add_argument("--split", choices=["test", "train"], default="test", help="which images")
    p.add_argument("--model", help="the network's name, for weights from elsewhere")
    p.add_argument("--image-size", type=_cli.positive(int), help="resample images to this size")
    p.add_argument("--batch-size", type=_cli.positive(int), default=250, help="images at a time")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where arrays live")
    p.add_argument("--threads", type=_cli.positive(int), help="threads of the CPU kernels (default: the usable cores)")
    options: argparse.Namespace = p.parse_args(arguments)
    on, _ = device.choose(options.device)
    if options.threads:
        device.set_threads(options.threads)

    config = Path(options.weights) / "config.json"
    own = json.loads(config.read_text()) if config.exists() else {}
    spec, size = options.data or own.get("data", "bundled"), options.image_size or own.get("image_size")
    dataset = data.load(spec, options.split, image_size=size)
    network = load(options.weights, options.model, dataset)
    if network.num_classes != dataset.num_classes:
        raise ValueError(
            f"{options.weights}: knows {network.num_classes} classes, {dataset.name} has {dataset.num_classes}"
        )
    if network.in_channels != dataset.channels:
        raise ValueError(
            f"{options.weights}: takes {network.in_channels} channels, {dataset.name} has {dataset.channels}"
        )
    network.to(device=on)
    print(report(scores(network, dataset, batch_size=options.batch_size, on=on), dataset.labels, dataset.classes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
