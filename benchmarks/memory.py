"""How much memory a training step takes at its peak, how deep the graph is, and that nothing of it is left behind."""

from __future__ import annotations

import argparse
import gc
import importlib.util
import weakref

from benchmarks import networks, sides, step, tables
from benchmarks.harness import Record, in_process, resident_megabytes

DEFAULT = "resnet20,resnet50,resnet152,resnet1202"
LONG = "resnet20"
STEPS = (20, 200)  # after which the resident memory of a long training is looked at


def measure_minicnn(threads: int, network: str) -> Record:
    """One step: how many ops it recorded, the bytes of their results, and what of those is alive when it is over."""
    from minicnn import autograd

    train = sides.minicnn_step(networks.NETWORKS[network], threads)
    ops, made = 0, 0
    results: list[weakref.ref] = []

    def remember(event: autograd.Event) -> None:
        nonlocal ops, made
        if event.phase == "forward":
            ops, made = ops + 1, made + event.outputs[0].nbytes
            results.append(weakref.ref(event.outputs[0]))

    gc.disable()  # reference counting alone has to free everything
    with autograd.observe(remember):
        train()
    return {"ops": ops, "activations_mb": made / 1e6, "alive": sum(result() is not None for result in results)}


def measure_growth(threads: int, network: str) -> Record:
    """The resident memory of a training after 20 and after 200 steps, in MB."""
    train = sides.minicnn_step(networks.NETWORKS[network], threads)
    resident = {}
    for i in range(1, max(STEPS) + 1):
        train()
        if i in STEPS:
            resident[f"after_{i}"] = resident_megabytes()
    return {"resident_mb": resident}


def measure_torch(threads: int, network: str, **options: bool) -> Record:
    sides.torch_step(networks.NETWORKS[network], threads, **options)()
    return {}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--networks", default=DEFAULT, metavar="A,B", help=f"of {', '.join(networks.NETWORKS)}")
    parser.add_argument(
        "--long", default=LONG, metavar="A,B", help=f"those that are trained for {max(STEPS)} steps too"
    )


def run(options: argparse.Namespace) -> tables.Table:
    long = networks.named(options.long)
    return tables.Table(
        name="memory",
        title="Memory of a training step",
        columns={
            "network": "{network}",
            "batch": "{batch} × {side}²",
            "ops recorded": "{ops}",
            "their results, MB": "{activations_mb:.0f}",
            "peak of minicnn, MB": "{peak_mb:.0f}",
            "peak of PyTorch, MB": "{torch_mb:.0f}",
            "results alive after the step": "{alive}",
            **{f"resident after {steps} steps, MB": f"{{resident_mb[after_{steps}]:.1f}}" for steps in STEPS},
        },
        rows=[measure(name, options.threads, name in long) for name in networks.named(options.networks)],
        machine=tables.machine(options.threads),
        notes=[
            "One step (forward, loss, backward, SGD with momentum) in a process of its own for each side. Peak: of the "
            "resident memory of the whole process, interpreter and libraries included. Alive: arrays that an op of the "
            "step returned and that are still there when it is over, with Python's cycle collector off.",
            "PyTorch's is the lower of its two layouts, NCHW and channels_last; a dash where it is not installed.",
            f"Resident: of a minicnn process that trains on, with Python's cycle collector on; only {', '.join(long)}.",
        ],
    )


def measure(network: str, threads: int, long: bool) -> Record:
    ours = in_process(measure_minicnn, threads=threads, network=network)
    theirs = None
    if importlib.util.find_spec("torch"):
        layouts = (False, True)
        records = [in_process(measure_torch, threads=threads, network=network, channels_last=last) for last in layouts]
        theirs = min(record["peak_mb"] for record in records)
    growth = in_process(measure_growth, threads=threads, network=network) if long else {"resident_mb": None}
    row = {"network": network, **step.shape(network), **growth, **ours, "torch_mb": theirs}
    print(
        f"{network}: {row['peak_mb']:.0f} MB, {row['alive']} of {row['ops']} results alive after the step", flush=True
    )
    return row
