"""Fine-tuning: to start from the weights of another network (`--init-from`), and to keep some as they are (`--freeze`).

A layer is taken whole or not at all: its weight, its bias and, of a BatchNorm, its running statistics. Which one goes
where is decided so:

1. A layer goes to the layer of the same name, if it has the same entries in the same shapes. So a ResNet of 18 layers
   starts one of 34, and a last layer for another number of classes stays as it was drawn.
2. The names of a VGG count its layers, and say nothing of one with other layers. There the authors' way is followed
   (arXiv 1409.1556 §3.1): the first four convolutions and the three fully connected layers are taken, and the others
   stay as drawn. A convolution goes to the next one, in the order of the layers, whose weight has the same shape: the
   second of A, from 64 to 128 channels, to the third of D.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minicnn import checkpoint, evaluate, interop
from minicnn.autograd import Tensor
from minicnn.layers import BatchNorm, Module
from minicnn.models.vgg import VGG

FIRST = 4  # convolutions of a VGG that start a deeper one
LISTED = 12  # names in a line of the report


class Taken(NamedTuple):
    """What a network has started from: its layers, with their names over there; those left as drawn; what was left."""

    source: str
    taken: dict[str, str]
    drawn: list[str]
    unused: list[str]

    def __str__(self) -> str:
        names = [name if name == there else f"{name} (there {there})" for name, there in self.taken.items()]
        count = len(self.taken) + len(self.drawn)
        lines = [f"taken from {self.source}: {len(self.taken)} of {count} layers: {_listed(names)}"]
        lines += [f"left as drawn: {_listed(self.drawn)}"] if self.drawn else []
        lines += [f"not taken: {_listed(self.unused)}"] if self.unused else []
        return "\n".join(lines)


def initialise(model: Module, source: str | Path) -> Taken:
    """Take what fits of the weights of a run folder, a file of ours, or a file of PyTorch's; says what that was.

    Of a run the averaged weights count, where it kept such. Raises ValueError in one line where the weights cannot be
    read, or nothing of them fits; then the model is as it was.
    """
    state, ours = _weights(Path(source))
    if not ours:
        state = interop.renamed(model, state)
    places = _places(model, state, ours)
    moved = {}
    for name, array in state.items():
        layer, _, entry = name.rpartition(".")
        if layer in places:
            moved[f"{places[layer]}.{entry}"] = array
    if not ours:
        moved = interop.laid_out(model, moved)

    own = model.state_dict()
    needed, offered = _layers(own), _layers(moved)
    came_from = {layer: there for there, layer in places.items()}
    taken = {
        layer: came_from[layer]
        for layer, names in needed.items()
        if layer in offered and _shapes(own, names) == _shapes(moved, offered[layer])
    }
    if not taken:
        raise ValueError(f"--init-from {source}: no layer of it fits; it needs weights of a related network")
    model.load_state_dict({name: moved[name] for layer in taken for name in offered[layer]}, strict=False)
    drawn = [layer for layer in needed if layer not in taken]
    return Taken(str(source), taken, drawn, [layer for layer in _layers(state) if layer not in taken.values()])


def _weights(path: Path) -> tuple[Mapping[str, Any], bool]:
    """The weights at a path, and whether they are in our layout."""
    try:
        path = evaluate.weights_file(path)
    except ValueError as error:
        raise ValueError(f"--init-from {error}") from None
    if path.suffix == ".safetensors":
        arrays, metadata = checkpoint.read_safetensors(path)
        ours = checkpoint.is_ours(metadata)
        return evaluate.averaged(arrays) if ours else arrays, ours
    return interop.read(path)[0], False


def _layers(names: Iterable[str]) -> dict[str, list[str]]:
    """Which of the names belong to each layer: {"conv1": ["conv1.weight", "conv1.bias"]}."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return layers


def _shapes(state: Mapping[str, Any], names: list[str]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(state[name].shape) for name in names}


def _places(model: Module, state: Mapping[str, Any], ours: bool) -> dict[str, str]:
    """Where each layer of a state dict would go: {its name there: the model's name}."""
    same = {layer: layer for layer in _layers(state)}
    if not isinstance(model, VGG):
        return same
    theirs, own = _convolutions(state, ours), _convolutions(model.state_dict(), ours=True)
    if list(theirs) == list(own):
        return same
    places: dict[str, str] = {}
    left = list(own.items())
    for layer, shape in list(theirs.items())[:FIRST]:
        at = next((i for i, (_, found) in enumerate(left) if found == shape), None)
        if at is not None:
            places[layer] = left[at][0]
            left = left[at + 1 :]
    return places | {layer: layer for layer in same if not layer.startswith("features.")}


def _convolutions(state: Mapping[str, Any], ours: bool) -> dict[str, tuple[int, ...]]:
    """The convolutions of a VGG in their order, with the (KH, KW, C, O) of their weights."""
    found = []
    for name, array in state.items():
        if (number := re.fullmatch(r"features\.(\d{1,4})\.weight", name)) and len(array.shape) == 4:
            shape = array.shape if ours else (*array.shape[2:], array.shape[1], array.shape[0])
            found.append((int(number[1]), name.removesuffix(".weight"), tuple(shape)))
    return {layer: shape for _, layer, shape in sorted(found)}


def _listed(names: list[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def freeze(model: Module, patterns: str) -> list[BatchNorm]:
    """Take parameters out of training, by names: `"conv1,layer1,*.bn2.*"`; no gradient is computed for them.

    A pattern is a parameter's name, the name of a layer or block that it is in, or a glob. A BatchNorm whose
    parameters are all frozen is to keep its running statistics too: those are returned, to be left in evaluation mode.

    Raises ValueError for a pattern that matches nothing, with the nearest name, and where nothing is left to train.
    """
    parameters = dict(model.named_parameters())
    frozen: set[str] = set()
    for pattern in patterns.split(","):
        pattern = pattern.strip()
        found = {name for name in parameters if _matches(name, pattern)}
        if not found:
            known = [*parameters, *(name for name, _ in model.named_modules() if name)]
            near = difflib.get_close_matches(pattern, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"names are such as {next(iter(parameters))}"
            raise ValueError(f"--freeze: no parameter is called {pattern!r}; {hint}")
        frozen |= found
    if len(frozen) == len(parameters):
        raise ValueError(f"--freeze {patterns}: that is every parameter, nothing is left to train")
    for name in frozen:
        parameters[name].requires_grad = False
    return [module for module in model.modules() if isinstance(module, BatchNorm) and _is_frozen(module)]


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or name.startswith(f"{pattern}.") or fnmatch.fnmatchcase(name, pattern)


def _is_frozen(module: Module) -> bool:
    return not any(value.requires_grad for value in vars(module).values() if isinstance(value, Tensor))
