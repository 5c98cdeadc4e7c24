"""An ONNX graph in the making: its nodes, its constants, and which of its values each array of ours has become.

An array of four axes, (N, H, W, C) here, is (N, C, H, W) there; every other array has its axes there in the order that
they have here. An array that no image has gone into is a constant there, under its own name if it is a parameter.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from minicnn import device

Array = Any

MAP = (0, 3, 1, 2)  # of a map's axes (N, H, W, C), in the order in which they lie in the graph
INPUT, OUTPUT = "images", "logits"


def order(ndim: int) -> tuple[int, ...]:
    """An array's axes, numbered as here, in the order in which they lie in the graph."""
    return MAP if ndim == 4 else tuple(range(ndim))


class Flattened(NamedTuple):
    """A map (N, H, W, C) made a row (N, H·W·C), as long as nobody needs the elements in that order."""

    map: Array


class Graph:
    """What `observe` sees of a network, op by op, becomes nodes and constants here; `table` says which.

    `op` and `label` are those of the op that is being converted: for messages, and for the names of its nodes.
    """

    def __init__(self, images: Array, names: dict[int, str]):
        """`images` (N, H, W, C) is what goes in; `names` the parameters' and buffers', by the id of the array."""
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.batch = len(images)
        self.op = self.label = ""
        self._names = names
        self._used = Counter([INPUT, OUTPUT])
        self._values: dict[int, tuple[Array, str | Flattened]] = {}  # the array is kept, for an id may be used again
        self.define(images, INPUT)

    # What arrays have become

    def define(self, array: Array, value: str | Flattened) -> None:
        self._values[id(array)] = array, value

    def depends_on_images(self, array: Any) -> bool:
        return id(array) in self._values

    def name(self, array: Any, ndim: int | None = None) -> str:
        """The value that an array or a number is in the graph, with 1 for the axes that it lacks to have `ndim`."""
        if not hasattr(array, "dtype"):
            return self.constant(np.float32(array))
        missing = (ndim or array.ndim) - array.ndim
        if not self.depends_on_images(array):
            wide = array.reshape((1,) * missing + array.shape)
            return self.constant(array, wide.transpose(order(wide.ndim)))
        _, value = self._values[id(array)]
        if isinstance(value, Flattened):
            value = self.node("Reshape", self.ours(value.map), self.integers(0, -1))
            self.define(array, value)
        if missing:
            wider = self.node("Unsqueeze", self.ours(array), self.integers(*range(missing)))
            return self.theirs(wider, array.ndim + missing)
        return value

    def flattened(self, array: Array) -> Array | None:
        """The map that this is the flattened form of, if it is one."""
        _, value = self._values[id(array)]
        return value.map if isinstance(value, Flattened) else None

    # The order of axes

    def rearranged(self, value: str, have: list[int], want: list[int]) -> str:
        """A value whose axes lie as `have` says, with its axes as `want` says."""
        return value if have == want else self.node("Transpose", value, perm=[have.index(axis) for axis in want])

    def ours(self, array: Array) -> str:
        """As `name`, with the axes in the order that they have here."""
        if not self.depends_on_images(array):
            return self.constant(array)
        return self.rearranged(self.name(array), list(order(array.ndim)), list(range(array.ndim)))

    def theirs(self, value: str, ndim: int) -> str:
        """A value whose axes are in the order that they have here, with those of a map as they lie in the graph."""
        return self.rearranged(value, list(range(ndim)), list(order(ndim)))

    # What it is made of

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of ONNX's operator `kind`; the name of its one output."""
        from onnx import helper

        output = self._unique(self.label)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def finish(self, array: Array) -> None:
        """Make an array the output."""
        from onnx import helper

        value = self.name(array)
        if self.nodes and self.nodes[-1].output[0] == value:
            self.nodes[-1].output[0] = OUTPUT
        else:
            self.nodes.append(helper.make_node("Identity", [value], [OUTPUT], name=OUTPUT))

    def constant(self, array: Any, stored: Any = None) -> str:
        """Add a constant in float32: `array`, or what is `stored` in its place, under the array's own name."""
        if self.depends_on_images(array):
            raise self.cannot("a weight that is computed from the images")
        here = device.to(np.asarray(array) if np.isscalar(array) else array if stored is None else stored, "cpu")
        return self._constant(self._names.get(id(array), f"{self.label}.constant"), here.astype(np.float32))

    def integers(self, *values: int) -> str:
        """Add a constant of whole numbers: shapes, axes, amounts of padding."""
        return self._constant(f"{self.label}.constant", np.array(values, np.int64))

    def _constant(self, name: str, array: np.ndarray) -> str:
        from onnx import numpy_helper

        name = self._unique(name)
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def label_of(self, arrays: tuple[Any, ...]) -> str:
        """The layer that the first parameter among the arrays belongs to; the op, where there is none."""
        owned = (self._names[id(array)] for array in arrays if id(array) in self._names)
        return next(owned, "").rpartition(".")[0] or self.op

    def _unique(self, name: str) -> str:
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}_{self._used[name]}"

    def cannot(self, what: str) -> ValueError:
        """The error to raise for something that there is no way to say in this graph."""
        return ValueError(f"{self.op}: {what} cannot be exported to ONNX")
