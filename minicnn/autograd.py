"""Reverse-mode automatic differentiation, whole: a Tensor, the tape it leaves behind, and the walk back along it.

A forward op makes an array and a closure `backward(gy, needs)` that turns the gradient of its output into the gradients
of its inputs. The op's `Node` keeps that closure and the edges to the nodes that made the inputs. `Tensor.backward`
visits the nodes so that each is reached after everything that used its output, adds up what arrives, and goes on.
That is all of back-propagation; the rest of the package is what the closures say.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

import kernels
from kernels import array_module
from minicnn._mixing import as_array, as_number, check_compatible
from minicnn.operators import Operators

Array = Any  # numpy.ndarray or cupy.ndarray
Forward = tuple[Array, Callable]  # what the function under an op returns: y, and its backward(gy, needs)


class Node:
    """One recorded op: its name, how to go back through it, and the edges to whatever made its arguments.

    An edge is another Node, a leaf Tensor that wants a gradient, or None. A Node holds no activations: they live in
    `backward`'s closure, as many as its formula names, and are dropped with it once it has run.
    """

    __slots__ = ("backward", "name", "parents", "watcher")

    def __init__(self, name: str, backward: Callable, parents: tuple[Node | Tensor | None, ...]):
        self.name, self.backward, self.parents = name, backward, parents
        self.watcher: weakref.ref[Tensor] | None = None  # the tensor that asked to retain its gradient


class Event(NamedTuple):
    """What an observer sees: one op that has just run, forward or backward."""

    phase: str  # "forward" or "backward"
    name: str  # the op's
    node: Node | None  # None when nothing is recorded
    inputs: tuple[Array, ...]  # the arguments; backward: the one upstream gradient
    outputs: tuple[Array | None, ...]  # the one result; backward: a gradient for each argument
    seconds: float
    options: Mapping[str, Any]  # the keywords given, such as stride; none of a backward


class _State(threading.local):  # of one thread
    recording = True
    observers: tuple[Callable[[Event], None], ...] = ()


_state = _State()


class Tensor(Operators):
    """An array that remembers how it was made, so that `backward` can find what it depends on.

    `data` is a NumPy or CuPy array, used as it is, never copied; `grad` is a raw array of the same shape and dtype,
    or None. Only floating-point tensors can require gradients. Arithmetic keeps the dtype; Python scalars adopt it.
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad")

    def __init__(self, data: Array, requires_grad: bool = False):
        array_module(data)  # a clear error for lists and numbers
        if requires_grad and data.dtype.kind != "f":
            raise TypeError(f"Tensor: only floating-point arrays can require gradients, this one is {data.dtype}")
        self.data, self.requires_grad = data, requires_grad
        self.grad: Array | None = None
        self.node: Node | None = None

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)

    def __repr__(self) -> str:
        made_by = f", made by {self.node.name}" if self.node else ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({self.data!r}{made_by})"

    def __len__(self) -> int:
        return len(self.data)

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: the array itself on the CPU, a copy from a GPU."""
        return self.data if isinstance(self.data, np.ndarray) else self.data.get()

    def item(self) -> float:
        """The one value of a tensor of size 1, as a Python number."""
        return self.data.item()

    def detach(self) -> Tensor:
        """The same array, cut off from its history: a constant."""
        return Tensor(self.data)

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def retain_grad(self) -> Tensor:
        """Ask `backward` to leave this intermediate result's gradient in `grad`; returns the tensor itself."""
        if self.node:
            self.node.watcher = weakref.ref(self)
        return self

    def backward(self, gy: Array | None = None) -> None:
        """Add to the `grad` of every leaf below this tensor: d(self)/d(leaf), weighted with the upstream `gy`.

        `gy` is a raw array of this tensor's shape and dtype; a tensor of size 1 may leave it out (it is 1 then).
        A graph can be walked once: its closures, and with them its activations, are dropped on the way.
        """
        if not self.requires_grad:
            raise RuntimeError("backward: this tensor depends on nothing that requires a gradient")
        if gy is None:
            if self.size != 1:
                raise RuntimeError(f"backward: a tensor of shape {self.shape} needs an upstream gradient gy")
            gy = array_module(self.data).ones_like(self.data)
        if array_module(gy) is not array_module(self.data) or gy.shape != self.shape or gy.dtype != self.dtype:
            given, needed = f"{gy.shape} {gy.dtype}", f"{self.shape} {self.dtype} on its own device"
            raise ValueError(f"backward: the upstream gradient gy is {given}, the tensor needs {needed}")

        root: Node | Tensor = self.node or self
        uses = _count_uses(root)
        pending: dict[Node | Tensor, tuple[Array, bool]] = {root: (gy, False)}  # gradient so far; is the buffer ours?
        ready = [root]
        while ready:
            node = ready.pop()
            gy, owned = pending.pop(node, (None, False))
            if isinstance(node, Tensor):
                _deposit(node, gy, owned)
                continue
            watcher = node.watcher() if node.watcher else None
            if watcher is not None:
                _deposit(watcher, gy, owned=False)
            go_back, node.backward = node.backward, None  # type: ignore[assignment]  # with it go its activations
            needs = tuple(parent is not None for parent in node.parents)
            if gy is None:  # no gradient reached it: none reaches what lies below
                grads = (None,) * len(needs)
            else:
                start = time.perf_counter() if _state.observers else 0.0
                grads = tuple(g if g is None else as_array(g) for g in go_back(gy, needs))
                _notify("backward", node.name, node, (gy,), grads, start, {})
            del go_back
            for parent, g in zip(node.parents, grads, strict=True):
                if parent is None:
                    continue
                if g is not None:
                    alone = g is not gy and not _is_view(g) and sum(g is other for other in grads) == 1
                    pending[parent] = _sum(*pending[parent], g, alone) if parent in pending else (g, alone)
                uses[parent] -= 1
                if uses[parent] == 0:
                    ready.append(parent)


def _count_uses(root: Node | Tensor) -> dict[Node | Tensor, int]:
    """How many recorded edges lead to each node below `root`: it may be visited when as many gradients have arrived."""
    uses: dict[Node | Tensor, int] = {root: 0}
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Tensor):
            continue
        if node.backward is None:
            raise RuntimeError(
                f"backward: the graph below '{node.name}' has been walked already and its activations are gone; "
                "run the forward pass again, or add the losses and call backward once"
            )
        for parent in node.parents:
            if parent is None:
                continue
            if parent not in uses:
                uses[parent] = 0
                stack.append(parent)
            uses[parent] += 1
    return uses


def _is_view(array: Array) -> bool:
    """Whether its memory belongs to another array."""
    return isinstance(array.base, type(array))


def _sum(total: Array, total_owned: bool, g: Array, g_owned: bool) -> tuple[Array, bool]:
    """total + g: in the memory of either, if nobody else can hold it, otherwise in new memory, which is ours then."""
    if not total_owned:
        total, g, total_owned = g, total, g_owned
    if not total_owned:
        return as_array(total + g), True
    kernels.of(total).sum_update(total, g)
    return total, True


def _deposit(tensor: Tensor, g: Array | None, owned: bool) -> None:
    """Add g to tensor.grad, which never shares memory with any other array."""
    if g is None:
        return
    if tensor.grad is None:
        tensor.grad = g if owned else g.copy()
    else:
        kernels.of(g).sum_update(tensor.grad, g)


def _notify(
    phase: str, name: str, node: Node | None, inputs: tuple, outputs: tuple, start: float, options: Mapping[str, Any]
) -> None:
    if _state.observers:
        event = Event(phase, name, node, inputs, outputs, time.perf_counter() - start, options)
        for observer in _state.observers:
            observer(event)


def differentiable(f: Callable[..., Forward], *, statistics: tuple[str, ...] = ()) -> Callable[..., Tensor]:
    """Lift `f(*arrays, **options) -> (y, backward)` to Tensors: this decorator makes an op out of a function.

    `backward(gy, needs)` returns one gradient for each positional parameter, of its shape and dtype: None where `needs`
    is False, otherwise a fresh array, a view of `gy`, or `gy` itself; it must not write to `gy`. Arrays that need
    gradients are positional, options are keywords; raw arrays and Python scalars may stand for constants. The
    parameters named as `statistics` may be float32 where the first one is float16.
    """
    name = f.__name__
    parameters = [p for p in inspect.signature(f).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    wider = tuple(i for i, p in enumerate(parameters) if p.name in statistics)

    @functools.wraps(f)
    def op(*args: Any, **options: Any) -> Tensor:
        for p in parameters[len(args) :]:  # given by keyword, or left at its default: positional all the same
            if p.name not in options and p.default is p.empty:
                break  # Python says best that it is missing
            args += (options.pop(p.name, p.default),)
        arrays = tuple(_raw(a) for a in args)
        check_compatible(name, arrays, wider)
        start = time.perf_counter() if _state.observers else 0.0
        options = {key: as_number(option) for key, option in options.items()}
        y, backward = f(*arrays, **options)
        result = Tensor(as_array(y))
        if _state.recording and any(isinstance(a, Tensor) and a.requires_grad for a in args):
            parents = tuple((a.node or a) if isinstance(a, Tensor) and a.requires_grad else None for a in args)
            result.node, result.requires_grad = Node(name, backward, parents), True
        _notify("forward", name, result.node, arrays, (result.data,), start, options)
        return result

    return op


def _raw(argument: Any) -> Any:
    """The array of a Tensor, and a constant as `as_number` has it."""
    return argument.data if isinstance(argument, Tensor) else as_number(argument)


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Within the block, ops of this thread record nothing and keep nothing for backward."""
    before, _state.recording = _state.recording, False
    try:
        yield
    finally:
        _state.recording = before


@contextlib.contextmanager
def observe(fn: Callable[[Event], None]) -> Iterator[None]:
    """Within the block, `fn(event)` is called after every op of this thread, forward and backward."""
    before, _state.observers = _state.observers, (*_state.observers, fn)
    try:
        yield
    finally:
        _state.observers = before


def detect_anomaly() -> contextlib.AbstractContextManager[None]:
    """Within the block, the first op whose result is NaN or Inf somewhere raises FloatingPointError with its name."""

    def check(event: Event) -> None:
        for array in event.outputs:
            if array is not None and array.dtype.kind == "f" and not bool(array_module(array).isfinite(array).all()):
                raise FloatingPointError(f"{event.phase} of '{event.name}' produced NaN or Inf")

    return observe(check)
