"""A static model of a training step on a GPU: every launch with its bytes, FLOPs and shared memory, and its limits."""

from __future__ import annotations

import argparse
import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import hollow, launches, networks, sides, tables
from benchmarks.launches import Launch, Touch
from minicnn import Tensor, _cli, autograd, device, models, optim


class Card(NamedTuple):
    """What a card can do at most, as NVIDIA has published it."""

    name: str
    bandwidth: float  # of the memory, bytes/s
    flops: float  # float32 without tensor cores, 1/s
    cache: int  # bytes of L2


CARDS = (
    # "NVIDIA A100 Tensor Core GPU", data sheet 2021, the 40 GB SXM; L2: "A100 Tensor Core GPU Architecture", 2020
    Card("A100", 1.555e12, 19.5e12, 40 << 20),
    # "NVIDIA H100 Tensor Core GPU", data sheet 2023, the SXM; L2: "H100 Tensor Core GPU Architecture", 2022
    Card("H100", 3.35e12, 67e12, 50 << 20),
    # "NVIDIA Ada GPU Architecture", white paper 2023, appendix A
    Card("RTX 4090", 1.008e12, 82.6e12, 72 << 20),
)
SUMS = ("add", "CuPy add")  # kernels that autograd adds gradients with
CHUNK = 1 << 16  # bytes that come to the cache and leave it together


# ---- One step, op by op ---------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Op:
    """What one op of the tape launched, forward or backward, and the memory that it left behind for others."""

    phase: str
    name: str
    shape: tuple[int, ...]  # of its result, forward; of its upstream gradient, backward
    launches: list[Launch]
    first: int  # the serial number of the first array that it made
    kept: set[int]  # serial numbers of arrays

    def unavoidable(self) -> float:
        """Bytes: what it reads of what was there before, and what it leaves behind, each once."""
        touched = [t for launch in self.launches for t in launch.reads if t.array < self.first]
        left = [t for launch in self.launches for t in launch.writes if t.array in self.kept or t.array < self.first]
        return _union(touched) + _union(left)


def _union(touched: Iterable[Touch]) -> float:
    """The bytes of memory that is touched once or several times."""
    of_array = defaultdict(list)
    for t in touched:
        of_array[t.array, t.share].append((t.start, t.start + t.length))
    total = 0.0
    for (_, share), spans in of_array.items():
        reached = 0
        for start, end in sorted(spans):
            total += share * max(0, end - max(start, reached))
            reached = max(reached, end)
    return total


def step(network: networks.Network, cache: int) -> list[Op]:
    """Forward, loss, backward and SGD with momentum, as they run on a card with `cache` bytes of L2, uncomputed."""
    ops: list[Op] = []
    with launches.recording(cache) as recorder:
        model = sides.minicnn_model(network, threads=1).to(device="cuda")
        optimiser = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        images = device.to(np.empty((network.batch, network.side, network.side, 3), np.float32), "cuda")
        labels = device.to(np.zeros(network.batch, np.int64), "cuda")
        first = hollow.made()

        def close(phase: str, name: str, shape: tuple[int, ...], kept: set[int]) -> None:
            """What was launched since the last call is an op; before it a gradient of several parts was added up."""
            nonlocal first
            done, sums = recorder.launches, 0
            if phase == "backward":
                sums = max((i for i, launch in enumerate(done, start=1) if launch.kernel in SUMS), default=0)
            if sums:
                ops.append(Op(phase, "sum of gradients", (), done[:sums], first, hollow.alive()))
                first = 1 + max(t.array for launch in done[:sums] for t in launch.writes)
            if done[sums:]:
                ops.append(Op(phase, name, shape, done[sums:], first, kept))
            recorder.launches, first = [], hollow.made()

        def see(event: autograd.Event) -> None:
            if event.phase == "forward":
                (y,) = event.outputs
                assert y is not None
                close("forward", event.name, y.shape, hollow.alive())
                return
            assert event.node is not None
            wanted = zip(event.outputs, event.node.parents, strict=True)
            kept = {g.serial for g, parent in wanted if g is not None and parent is not None}
            close("backward", event.name, event.inputs[0].shape, kept)

        with autograd.observe(see):
            loss = models.loss(model(Tensor(images)), labels)
            optimiser.zero_grad()
            loss.backward()
        close("backward", "gradients", (), hollow.alive())
        optimiser.step()
        close("update", "SGD", (), hollow.alive())
    return ops


# ---- What goes to memory --------------------------------------------------------------------------------------------


class _Held(NamedTuple):
    """What the cache holds of a chunk, and the launch that wrote it; -1 if memory has the same."""

    begin: int
    end: int
    share: float
    writer: int

    @property
    def bytes(self) -> float:
        return (self.end - self.begin) * self.share


class Traffic:
    """An L2 cache of `size` bytes, empty when an op begins; what was used longest ago leaves it first.

    `read` and `written` are the bytes that each launch has read from memory, or has written and the cache had no room
    for. What an op has written and nobody needs after it, its columns above all, is forgotten at its end.
    """

    def __init__(self, op: Op, size: int):
        self.read, self.written = [0.0] * len(op.launches), [0.0] * len(op.launches)
        self._size, self._used = size, 0.0
        self._chunks: OrderedDict[tuple[int, int], _Held] = OrderedDict()  # by array and number
        for i, launch in enumerate(op.launches):
            for t in launch.reads:
                self._touch(i, t, writes=False)
            for t in launch.writes:
                self._touch(i, t, writes=True)
        for (array, _), held in self._chunks.items():
            if held.writer >= 0 and (array in op.kept or array < op.first):
                self.written[held.writer] += held.bytes

    def _touch(self, i: int, t: Touch, writes: bool) -> None:
        end = t.start + t.length
        for chunk in range(t.start // CHUNK, -(-end // CHUNK)):
            begin, stop = max(t.start, chunk * CHUNK), min(end, (chunk + 1) * CHUNK)
            held = self._chunks.pop((t.array, chunk), None) or _Held(begin, begin, t.share, -1)
            there = max(0, min(stop, held.end) - max(begin, held.begin))
            new = (stop - begin - there) * t.share
            self.read[i] += 0 if writes else new
            self._used += new
            span = min(begin, held.begin), max(stop, held.end)
            self._chunks[t.array, chunk] = _Held(*span, t.share, i if writes else held.writer)
            while self._used > self._size:
                _, left = self._chunks.popitem(last=False)
                self._used -= left.bytes
                if left.writer >= 0:
                    self.written[left.writer] += left.bytes


def seconds(card: Card, moved: float, flops: float) -> float:
    """The least time that a launch takes: its bytes at the card's bandwidth or its FLOPs at its peak."""
    return max(moved / card.bandwidth, flops / card.flops)


def _times(sides: tuple[int, ...]) -> str:
    return "×".join(map(str, sides))


def _row(phase: str, op: str, kernel: str) -> dict[str, Any]:
    figures = {"unavoidable": None, "launches": 0, "read": 0.0, "written": 0.0, "gflop": 0.0, "shared": None}
    return {"phase": phase, "op": op, "kernel": kernel, **figures, "ms": {card.name: 0.0 for card in CARDS}, "each": []}


def rows(ops: Sequence[Op], cache: int) -> list[dict[str, Any]]:
    """A row for each kernel of each kind of op, with its launches added up, and one by one under "each". MB, GFLOP."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for op in ops:
        traffic = Traffic(op, cache)
        unavoidable: float | None = op.unavoidable() / 1e6
        name = f"{op.name} {_times(op.shape)}".rstrip()
        for launch, read, written in zip(op.launches, traffic.read, traffic.written, strict=True):
            key = op.phase, name, launch.kernel
            row = found.setdefault(key, _row(*key))
            if unavoidable is not None:  # an op's stands in the row of its first launch
                row["unavoidable"] = (row["unavoidable"] or 0) + unavoidable
                unavoidable = None
            row["launches"] += 1
            row["read"] += read / 1e6
            row["written"] += written / 1e6
            row["gflop"] += launch.flops / 1e9
            row["shared"] = launch.shared
            for card in CARDS:
                row["ms"][card.name] += 1e3 * seconds(card, read + written, launch.flops)
            size = {"grid": _times(launch.grid), "block": _times(launch.block)} if launch.grid else {}
            figures = {"read": round(read), "written": round(written), "flop": round(launch.flops)}
            row["each"].append({**size, **figures})
    return list(found.values())


def sums(of: Sequence[dict[str, Any]], phase: str = "") -> dict[str, Any]:
    """One row for those of a phase, or for all."""
    total = _row(phase or "step", "", "sum")
    chosen = [row for row in of if row["phase"] == phase or not phase]
    for name in ("unavoidable", "launches", "read", "written", "gflop"):
        total[name] = sum(row[name] or 0 for row in chosen)
    total["ms"] = {card.name: sum(row["ms"][card.name] for row in chosen) for card in CARDS}
    return total


def ratio(of: Sequence[dict[str, Any]]) -> float:
    """Bytes moved by the bytes that cannot be avoided."""
    total = sums(of)
    return (total["read"] + total["written"]) / total["unavoidable"]


def summary(card: Card, of: Sequence[dict[str, Any]]) -> str:
    """What a step asks of a card."""
    total = sums(of)
    moved = total["read"] + total["written"]
    return (
        f"{card.name}: {total['launches']} launches, {moved / 1e3:.2f} GB moved, {total['unavoidable'] / 1e3:.2f} GB "
        f"unavoidable, ratio {ratio(of):.2f}; at least {total['ms'][card.name]:.1f} ms."
    )


NOTES = (
    "How it was counted: the step itself ran, forward, loss, backward and SGD with momentum in float32, on stand-ins "
    "for CuPy's arrays that have a shape and no elements, with a launcher, a wrapper of cuBLAS and array operations "
    "that keep what they are asked for. Nothing was computed and no GPU was there. What a kernel reads and writes, and "
    "its shared memory, is taken from its source. `tests/cuda/test_host_cupy_launches.py` compares the launches with "
    "those that CuPy itself makes, on small images.",
    "Read and written: bytes that pass between L2 and memory, if each op finds the cache empty, what was used longest "
    "ago leaves it first, and what an op does not leave behind (columns) is not written back at its end. A product is "
    "taken to read each factor once. Unavoidable: what each op of the tape, after fusion, reads of what was there "
    "before it, and what it leaves behind, each once.",
    "ms: for each launch the larger of its bytes by the card's published bandwidth and its FLOPs by the published peak "
    "of float32 without tensor cores; no launch comes that near, and the time between launches is not in it. FLOPs of "
    "kernels other than products are approximate. The rows are those of the first card; the cache of each decides how "
    "many pieces a convolution's columns are cut into.",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("networks", metavar="NETWORK,…", help=f"of {', '.join(networks.NETWORKS)}")
    size: dict[str, Any] = {"type": _cli.positive(int), "metavar": "N"}
    parser.add_argument("--batch-size", help="images of a step; default: as in the other benchmarks", **size)


def run(options: argparse.Namespace) -> Iterator[tables.Table]:
    for name, network in networks.named(options.networks).items():
        yield table(name, dataclasses.replace(network, batch=options.batch_size or network.batch), options.threads)


def table(name: str, network: networks.Network, threads: int) -> tables.Table:
    """The table of a network: sums first, then kernel by kernel; and what each card needs in its notes."""
    per_card = {card: rows(step(network, card.cache), card.cache) for card in CARDS}
    of = per_card[CARDS[0]]
    return tables.Table(
        name=f"cuda-model-{name}",
        title=f"Model of a training step on a GPU: {name}, {network.batch} images of {network.side}×{network.side}",
        columns={
            "phase": "{phase}",
            "op": "{op}",
            "kernel": "{kernel}",
            "launches": "{launches}",
            "read, MB": "{read:.1f}",
            "written, MB": "{written:.1f}",
            "unavoidable of the op, MB": "{unavoidable:.1f}",
            "GFLOP": "{gflop:.2f}",
            "shared memory, bytes": "{shared:.0f}",
            **{f"ms at the limits of {card.name}": f"{{ms[{card.name}]:.3f}}" for card in CARDS},
        },
        rows=[sums(of), *(sums(of, phase) for phase in ("forward", "backward", "update")), *of],
        machine=tables.machine(threads),
        notes=[*NOTES, "\n".join(f"- {summary(card, counted)}" for card, counted in per_card.items())],
    )
