"""How rounding errors grow on the way through a deep network: all its gradients in float32, against float64."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import statistics
from typing import Any

import numpy as np

from benchmarks import sides, tables
from benchmarks.harness import Record, in_process
from benchmarks.networks import Network
from minicnn.study import chart

NETWORKS = [Network("resnet110", 8, 32), Network("vgg-d", 2, 224)]
WAYS = ("Winograd", "direct", "PyTorch")
SEEDS = (0, 1, 2)  # of weights

Arrays = dict[str, np.ndarray]
Result = tuple[float, Arrays, np.ndarray | None]  # see minicnn_gradients


# --- In the child process ----------------------------------------------------------------------------------------


def measure(threads: int, network: Record, weights: int) -> Record:
    """For each way to compute in float32, with the weights of a seed, how far it is from float64.

    `convolutions`: the error of each convolution's gradient, from the images on; `parameters`: that of every parameter;
    `loss`: all as a share of the largest value. `decided`: the share of ReLU's outputs that are 0 in one and not in the
    other (of minicnn's).
    """
    from kernels import cpu
    from minicnn import device, layers, models, seed

    size = Network(**network)
    device.set_threads(threads)
    seed(weights)
    model = models.build(size.model, size.classes, image_size=size.side, **size.variant)
    for module in model.modules():
        if isinstance(module, layers.Dropout):
            module.p = 0.0  # each library draws other masks
    found: dict[str, Result] = {"Winograd": minicnn_gradients(model, size)}
    with cpu.exact():
        found["direct"] = minicnn_gradients(model, size)
    if importlib.util.find_spec("torch"):
        found["PyTorch"] = *torch_gradients(model, size, threads), None
    exact_loss, exact, exact_signs = minicnn_gradients(model.to(dtype=np.float64), size)
    convolutions = [name for name, array in exact.items() if array.ndim == 4]

    def errors(loss: float, gradients: Arrays, signs: np.ndarray | None) -> Record:
        of = {name: float(np.abs(gradients[name] - g).max() / np.abs(g).max()) for name, g in exact.items() if g.any()}
        by_depth = [of[name] for name in convolutions]
        decided = None if signs is None else float((signs != exact_signs).mean())
        return {
            "loss": abs(loss / exact_loss - 1),
            "convolutions": by_depth,
            "parameters": list(of.values()),
            "decided": decided,
        }

    return {way: errors(*result) for way, result in found.items()}


def minicnn_gradients(model: Any, size: Network) -> Result:
    """The loss, the gradient of every parameter, and where the outputs of all ReLUs are above 0."""
    from minicnn import Tensor, autograd, models

    signs = []

    def watch(event: autograd.Event) -> None:
        if event.phase == "forward" and "relu" in event.name:
            signs.append(np.ravel(np.asarray(event.outputs[0]) > 0))

    images, labels = sides.batch(size)
    dtype = next(model.parameters()).data.dtype
    model.zero_grad()
    with autograd.observe(watch):
        loss = models.loss(model(Tensor(images.astype(dtype))), labels)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return loss.item(), gradients, np.concatenate(signs)


def torch_gradients(model: Any, size: Network, threads: int) -> tuple[float, Arrays]:
    """The same by PyTorch, from the weights of our model, in our layout."""
    import torch

    from benchmarks import torch_networks
    from minicnn import interop, models

    torch.set_num_threads(threads)
    theirs = torch_networks.build(size.model, size.classes, size.side, **size.variant)
    weights = {name: torch.from_numpy(array) for name, array in interop.to_torch(model).items()}
    theirs.load_state_dict(weights, strict=False)  # it also counts batches
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    images, labels = (torch.from_numpy(array) for array in sides.batch(size))
    loss = torch_networks.loss(theirs(images.permute(0, 3, 1, 2)), labels)
    loss.backward()
    carrier = models.build(**model.config)  # what can load weights can load gradients, and knows the layouts
    state = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    interop.load_torch(carrier, state, strict=False)
    return loss.item(), {name: parameter.data for name, parameter in carrier.named_parameters()}


# --- The table ---------------------------------------------------------------------------------------------------


def table(threads: int) -> tables.Table:
    rows = [row for network in NETWORKS for row in rows_of(network, threads)]
    first = {row["way"]: row["convolutions"] for row in rows if row["model"] == NETWORKS[0].model}
    lines = {way: [(i + 1, math.log10(e)) for i, e in enumerate(errors)] for way, errors in first.items()}
    return tables.Table(
        name="accuracy-depth",
        title="Rounding errors of the gradients of deep networks",
        columns={
            "network": "{model}",
            "batch": "{batch} × {side}²",
            "computed by": "{way}",
            "loss": "{loss:.1e}",
            "last convolution": "{last:.1e}",
            "middle": "{middle:.1e}",
            "first": "{first:.1e}",
            "median of all parameters": "{median:.1e}",
            "worst": "{worst:.1e}",
            "ReLUs that decide otherwise": "{decided:.1e}",
        },
        rows=rows,
        machine=tables.machine(threads),
        notes=[
            "The largest difference of a gradient in float32 from the same in float64 (computed by minicnn), as a "
            "share of its largest value. One batch of random images, weights as at the start of a training, no "
            f"dropout; medians over {len(SEEDS)} seeds of weights.",
            "Gradients flow from the last convolution to the first. A ReLU or a max-pool whose inputs are within "
            "rounding of a tie passes another gradient than in float64: that, more than rounding itself, makes the "
            "errors of deep networks, in every library. The last column says how many ReLUs do, of all their outputs.",
            f"Figure: log₁₀ of the error of each convolution's gradient in {NETWORKS[0].model}.",
        ],
        figure=chart.lines(
            {way: chart.through(line) for way, line in lines.items()},
            *(f"Gradients in {NETWORKS[0].model}", "convolution, from the images on", "log₁₀ of the error"),
        ),
    )


def rows_of(network: Network, threads: int) -> list[Record]:
    """One network, in each way: the medians over the seeds."""
    print(f"{network.model}:", flush=True)
    size = dataclasses.asdict(network)
    seeds = [in_process(measure, threads=threads, network=size, weights=weights) for weights in SEEDS]
    rows = []
    for way in [way for way in WAYS if way in seeds[0]]:
        found = [record[way] for record in seeds]
        convolutions = medians([errors["convolutions"] for errors in found])
        figures = {
            "loss": statistics.median(errors["loss"] for errors in found),
            "convolutions": convolutions,
            "last": convolutions[-1],
            "middle": convolutions[len(convolutions) // 2],
            "first": convolutions[0],
            "median": statistics.median(statistics.median(errors["parameters"]) for errors in found),
            "worst": statistics.median(max(errors["parameters"]) for errors in found),
            "decided": None if way == "PyTorch" else statistics.median(errors["decided"] for errors in found),
        }
        rows.append({**size, "way": way, **figures, "seeds": found})
        print(f"  {way}: median {figures['median']:.1e}, worst {figures['worst']:.1e}", flush=True)
    return rows


def medians(lists: list[list[float]]) -> list[float]:
    """Of the first entries, of the second, and so on."""
    return [statistics.median(entries) for entries in zip(*lists, strict=True)]
