"""The command `python -m minicnn.export`: a trained network as an ONNX file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from minicnn import _cli, checkpoint, data, evaluate, export, folding, weights
from minicnn.data import Dataset
from minicnn.models import Model

TOLERANCE = 1e-4  # of the largest logit: more than rounding in float32 leaves
PREPROCESSING = "pixels as fractions from 0 to 1, colours as red, green, blue; minus mean, over std"


@_cli.command
def main(arguments: list[str] | None = None) -> int:
    p = _cli.Parser(
        prog="python -m minicnn.export",
        description='Write a trained network as an ONNX file, from "images", float32 (N, C, H, W), to "logits".',
    )
    p.add_argument("weights", type=Path, metavar="RUN|WEIGHTS", help="a run folder, or a file of weights")
    p.add_argument("--onnx", required=True, type=Path, metavar="FILE", help="the file to write")
    p.add_argument("--fold", action="store_true", help="let BatchNorms become part of the convolutions before them")
    p.add_argument("--model", help="the network's name, for weights from elsewhere")
    p.add_argument("--data", metavar="SPEC", help="whose classes, mean and deviation to note (default: the run's own)")
    options = p.parse_args(arguments)
    path, target = options.weights, options.onnx
    if not path.exists():
        raise ValueError(f"{path}: no such run folder or file")
    if not target.parent.is_dir():
        raise ValueError(f"{target}: there is no folder {target.parent}; make it first")

    noted = notes(path)
    dataset = None if "classes" in noted and not options.data else dataset_of(path, options.data)
    network = evaluate.load(path, options.model, dataset)
    noted |= notes_on(dataset, network) if dataset else {}
    noted |= {"model": json.dumps(network.config)} | ({"preprocessing": PREPROCESSING} if "mean" in noted else {})
    exported = export.model(folding.fold(network) if options.fold else network, metadata=noted)
    content = exported.SerializeToString()
    checked = check(network, content)
    checkpoint.write_whole(target, content)
    print(f"{target}: {network.name}, {len(exported.graph.node)} nodes, {len(content) / 1e6:.1f} MB; {checked}")
    return 0


def notes(path: Path) -> dict[str, str]:
    """What a file of weights says of itself: classes, mean and deviation, where it is from."""
    says = evaluate.metadata(path)
    return {key: says[key] for key in weights.TAKES_ALONG if key in says}


def dataset_of(path: Path, spec: str | None) -> Dataset | None:
    """The data set at `spec`, or else the one that a run was trained on, if it is here."""
    own = evaluate.configuration(path)
    if spec is None and "data" not in own:
        return None
    try:
        return data.load(spec or own["data"], image_size=own.get("image_size"))
    except data.DataError as error:
        if spec is not None:
            raise
        print(f"no classes, mean and deviation in the file: {error}", file=sys.stderr)
        return None


def notes_on(dataset: Dataset, network: Model) -> dict[str, str]:
    """What the classes are, and how images are made ready for the network."""
    if dataset.num_classes != network.num_classes or dataset.channels != network.in_channels:
        raise ValueError(
            f"{dataset.name} has {dataset.num_classes} classes and {dataset.channels} channels, "
            f"{network.name} {network.num_classes} and {network.in_channels}; give the network's own --data"
        )
    return {
        "classes": json.dumps(dataset.classes, ensure_ascii=False),
        "mean": json.dumps([round(float(m), 6) for m in dataset.mean]),
        "std": json.dumps([round(float(s), 6) for s in dataset.std]),
    }


def check(network: Model, content: bytes) -> str:
    """What onnxruntime says to the file; ValueError if it computes something else."""
    try:
        difference = export.difference(network, content)
    except ImportError:
        return "not checked, for onnxruntime is missing: pip install 'minicnn[onnx]'"
    if not difference <= TOLERANCE:
        raise ValueError(f"nothing written: onnxruntime's logits differ by {difference:.1e} of the largest")
    return f"onnxruntime's logits are within {difference:.1e} of the largest"


if __name__ == "__main__":
    sys.exit(main())
