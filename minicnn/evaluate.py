"""The command `python -m minicnn.evaluate`: how good a trained network is, and what it takes for what."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import Tensor, _cli, checkpoint, data, device, interop, models, no_grad, ops
from minicnn.data import Dataset, Loader, augment, pixels

LISTED = 10  # classes and confusions in the report


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
        arrays, metadata = checkpoint.read(path)
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


def batches(dataset: Dataset, size: int) -> Loader:
    """The images of a data set in order, as a network for `size` pixels is tested on them, about a million at a time.

    Of larger images it sees the middle, smaller ones are enlarged.
    """

    def fit(images: np.ndarray, _: np.random.Generator) -> np.ndarray:
        return augment.centre_crop(images, size=size) if images.shape[1] > size else pixels.resize(images, size)

    together = min(max(2**20 // size**2, 1), 256, len(dataset))
    return Loader(dataset, together, augment=fit, shuffle=False)


def accuracy_and_loss(
    model: models.Model, images: Dataset | Iterable[tuple[np.ndarray, np.ndarray]], *, on: str = "cpu"
) -> dict[str, float]:
    """{"accuracy", "loss"} of a model over a data set or batches of it; the model's mode is put back afterwards."""
    training = model.training
    model.eval()
    right, loss, count = 0, 0.0, 0
    try:
        with no_grad():
            for x, labels in batches(images, model.image_size) if isinstance(images, Dataset) else images:
                logits, y = model(Tensor(device.to(x, on))), device.to(labels, on)
                loss += ops.cross_entropy(logits, y, reduction="sum").item()
                right += int((logits.data.argmax(axis=1) == y).sum())
                count += len(labels)
    finally:
        model.train(training)
    return {"accuracy": right / max(count, 1), "loss": loss / max(count, 1)}


def predictions(model: models.Model, dataset: Dataset, *, on: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """The logits (N, classes) of a model in evaluation mode for every image of a data set, and the labels (N,)."""
    with no_grad():
        pairs = [(model(Tensor(device.to(x, on))).numpy(), y) for x, y in batches(dataset, model.image_size)]
    logits, labels = zip(*pairs, strict=True)
    return np.concatenate(logits), np.concatenate(labels)


def report(logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> str:
    """Top-1, top-5, accuracy by class and the most frequent confusions, as text."""
    order = np.argsort(-logits, axis=1, kind="stable")  # (N, classes), the likeliest first
    lines = []
    for k in (1, 5):
        if k < len(classes):
            right = int((order[:, :k] == labels[:, None]).any(axis=1).sum())
            lines.append(f"top-{k} accuracy {right / len(labels):.4f} ({right} of {len(labels)})")

    confusion = np.zeros((len(classes), len(classes)), int)  # [true class, class said]
    np.add.at(confusion, (labels, order[:, 0]), 1)
    by_class = sorted((row[i] / row.sum(), classes[i], row.sum()) for i, row in enumerate(confusion) if row.any())
    width = max(map(len, classes))
    lines += ["", f"accuracy by class, lowest first{_of(len(by_class))}:"]
    lines += [f"  {name:{width}}  {accuracy:.3f} of {count}" for accuracy, name, count in by_class[:LISTED]]

    np.fill_diagonal(confusion, 0)
    pairs = sorted(((n, i, j) for (i, j), n in np.ndenumerate(confusion) if n), key=lambda p: (-p[0], p[1], p[2]))
    lines += ["", f"confusions, most frequent first{_of(len(pairs))}:"]
    lines += [f"  {n:4} × {classes[i]} taken for {classes[j]}" for n, i, j in pairs[:LISTED]]
    return "\n".join(lines)


def _of(count: int) -> str:
    return f" ({LISTED} of {count})" if count > LISTED else ""


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    p = _cli.Parser(prog="python -m minicnn.evaluate", description="Evaluate a trained network.")
    p.add_argument("weights", metavar="RUN|WEIGHTS", help="a run folder, or a .safetensors file")
    p.add_argument("--data", metavar="SPEC", help="as for minicnn.train (default: the run's own, else bundled)")
    p.add_argument("--split", choices=["test", "train"], default="test", help="which images")
    p.add_argument("--model", help="the network's name, for weights from elsewhere")
    p.add_argument("--image-size", type=_cli.positive(int), metavar="N", help="resample images to this side")
    p.add_argument("--skip-corrupt", action="store_true", help="leave out image files that cannot be decoded")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where arrays live")
    p.add_argument("--threads", type=_cli.threads, metavar="N", help="of the CPU kernels (default: usable cores)")
    options = p.parse_args(arguments)
    on, _ = device.choose(options.device)
    if options.threads:
        device.set_threads(options.threads)

    path = Path(options.weights)
    if not path.exists():
        raise ValueError(f"{path}: no such run folder or file")
    config = (path if path.is_dir() else path.parent) / "config.json"
    own = json.loads(config.read_text("utf-8")) if config.exists() else {}
    dataset = data.load(
        options.data or own.get("data", "bundled"),
        options.split,
        image_size=options.image_size or own.get("image_size"),
        skip_corrupt=options.skip_corrupt or own.get("skip_corrupt", False),
    )
    network = load(path, options.model, dataset)
    for has, takes, what in [
        (dataset.num_classes, network.num_classes, "classes"),
        (dataset.channels, network.in_channels, "channels"),
    ]:
        if has != takes:
            raise ValueError(f"{path}: {network.name} was trained for {takes} {what}, {dataset.name} has {has}")
    network.to(device=on)
    print(report(*predictions(network, dataset, on=on), dataset.classes))
    if dataset.corrupt:
        print(f"\nskipped {len(dataset.corrupt)} files that cannot be decoded, such as {dataset.corrupt[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
