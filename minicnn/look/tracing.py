"""A forward pass that is written down: every op that ran, under the name of its layer, on a tape to walk back along."""

from __future__ import annotations

import contextlib
import difflib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from minicnn import ops
from minicnn.autograd import Array, Event, Tensor, observe
from minicnn.layers import Module, ReLU, Sequential, evaluation
from minicnn.summary.profile import names_of_running_layers

Rule = Callable[[Array, tuple[bool, ...]], tuple[Array | None, ...]]  # stands for the backward of an op


class Step(NamedTuple):
    """One op that ran."""

    name: str  # "layer1.0.conv1"; of an op without a module "layer1.0.relu", the next one "layer1.0.relu_1"
    layer: str  # the module: the one whose parameters were used, or else the innermost that was running
    op: str  # "conv2d"
    inputs: tuple[Any, ...]  # its arguments, raw
    y: Tensor  # its result


class Trace(NamedTuple):
    """What one forward pass leaves: the image as a leaf of the tape, the steps, the network's (main) scores."""

    x: Tensor  # (N, H, W, C)
    steps: list[Step]
    logits: Tensor  # (N, classes)

    def find(self, layer: str) -> Step:
        """The step that made a layer's result: by the name of a module ("layer1", "features.0"), or of the step.

        ValueError with the nearest names for one that is not there.
        """
        inside = [step for step in self.steps if step.layer == layer or step.layer.startswith(f"{layer}.")]
        found = inside or [step for step in self.steps if step.name == layer]
        if not found:
            raise ValueError(f"unknown layer {layer!r}: {self._nearest(layer)}")
        return found[-1]

    def _nearest(self, layer: str) -> str:
        paths = [step.layer.split(".") for step in self.steps if step.layer]
        modules = [".".join(path[:depth]) for path in paths for depth in range(1, len(path) + 1)]
        names = list(dict.fromkeys([*modules, *(step.name for step in self.steps)]))
        near = difflib.get_close_matches(layer, names, n=3, cutoff=0.5)
        if near:
            return f"did you mean {' or '.join(near)}?"
        return f"choose from {', '.join(dict.fromkeys(path[0] for path in paths))} and what is inside them"

    def find_map(self, layer: str | None = None) -> Step:
        """As `find`, of a layer that makes a map (N, H, W, C); without a name, the last map before the classifier.

        That is the last one larger than 1x1 that is no pool's: a pool blurs what the layer before knew of places.
        """
        if layer is not None:
            step = self.find(layer)
            if step.y.ndim != 4:
                raise ValueError(f"layer {layer!r} makes no map but {step.y.shape[1:]} numbers; choose an earlier one")
            return step
        maps = [step for step in self.steps if step.y.ndim == 4 and step.y.shape[1] * step.y.shape[2] > 1]
        unpooled = [step for step in maps if step.op not in ("max_pool", "avg_pool")]
        if not unpooled:
            raise ValueError("this network makes no map larger than 1x1 of the image; use larger images")
        return unpooled[-1]

    def score(self, label: int) -> None:
        """Walk back from the score of a class, that of every image: gradients are left where they were asked for."""
        gy = self.logits.data * 0  # (N, classes)
        gy[:, label] = 1
        self.logits.backward(gy)


def trace(
    model: Module, x: Array, *, fused: bool = False, rules: Mapping[str, Rule] | None = None, keep: str | None = None
) -> Trace:
    """Run a model in evaluation mode and write down each op: its name, its inputs, its result.

    The results stand on a tape that leads back to `Trace.x`; parameters are constants there. By default every fused op
    runs as its parts, so that a map before its ReLU is there to be seen. `rules` replace the backward of ops by name:
    {"relu": lambda gy, needs: (gy,)} lets everything pass. The results of ops called `keep` retain their gradients.

    x (N, H, W, C), on the model's device and of its dtype. Names are those of the modules, and for ops without one
    those of `torchvision.models.feature_extraction`: the op's name within the module that called it.
    """
    layers = dict(model.named_modules())
    # state_dict() gives the parameters' own arrays, which is what ops are seen to be called with
    owners = {id(array): name.rpartition(".")[0] for name, array in model.state_dict().items()}
    relu_behind = dict(_relus(layers))
    steps: list[Step] = []
    used: Counter[str] = Counter()

    def layer_of(event: Event) -> tuple[str, bool]:
        """The module that an op belongs to, and whether the op is all that this module does."""
        owner = next((owners[id(array)] for array in event.inputs if id(array) in owners), None)
        if owner is not None:
            return owner, True
        if event.name == "relu" and steps and event.inputs[0] is steps[-1].y.data and steps[-1].layer in relu_behind:
            return relu_behind[steps[-1].layer], True
        return running[-1], bool(running[-1]) and not any(layers[running[-1]].children())

    def watch(event: Event) -> None:
        layer, alone = layer_of(event)
        name = layer if alone else f"{layer}.{event.name}".removeprefix(".")
        used[name] += 1
        y = Tensor(event.outputs[0])
        y.node, y.requires_grad = event.node, event.node is not None
        if event.node is not None and rules and event.name in rules:
            event.node.backward = rules[event.name]
        if event.name == keep:
            y.retain_grad()
        number = f"_{used[name] - 1}" if used[name] > 1 else ""
        steps.append(Step(name + number, layer, event.name, event.inputs, y))

    leaf = Tensor(x, requires_grad=True)
    with (
        names_of_running_layers(model) as running,
        evaluation(model),
        _constant(model),
        contextlib.nullcontext() if fused else ops.fused.disabled(),
        observe(watch),
    ):
        scores = model(leaf)
    return Trace(leaf, steps, scores[0] if isinstance(scores, tuple) else scores)


def _relus(layers: Mapping[str, Module]) -> Iterator[tuple[str, str]]:
    """The names of a layer in a Sequential and of the ReLU behind it, which is computed by the layer."""
    for prefix, module in layers.items():
        if isinstance(module, Sequential):
            for (name, _), (next_name, following) in itertools.pairwise(module.named_children()):
                if isinstance(following, ReLU):
                    yield f"{prefix}.{name}".removeprefix("."), f"{prefix}.{next_name}".removeprefix(".")


@contextlib.contextmanager
def _constant(model: Module) -> Iterator[None]:
    """Within the block, no parameter requires a gradient: none is computed, and none is left behind."""
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad = True
