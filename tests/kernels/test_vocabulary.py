"""All backends speak one language, and the reference is written so that CuPy understands it."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest

import kernels
from kernels import reference
from tests.device import np

BACKENDS = ("reference", "cpu", "cuda")


def parameters(function) -> list[tuple]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_backend_has_the_names_parameters_and_defaults_of_the_reference(backend):
    module = importlib.import_module(f"kernels.{backend}")
    assert module.__all__ == reference.__all__
    for name in reference.__all__:
        assert parameters(getattr(module, name)) == parameters(getattr(reference, name)), name


def test_vocabulary_is_every_public_function_of_the_reference():
    functions = {
        name
        for name, value in vars(reference).items()
        if inspect.isfunction(value) and value.__module__ == reference.__name__ and not name.startswith("_")
    }
    assert functions == set(reference.__all__)
    assert len(reference.__all__) == len(functions)


@pytest.mark.parametrize("name", reference.__all__)
def test_every_kernel_has_a_docstring_and_type_hints(name):
    function = getattr(reference, name)
    assert function.__doc__
    signature = inspect.signature(function)
    annotations = [p.annotation for p in signature.parameters.values()] + [signature.return_annotation]
    assert inspect.Signature.empty not in annotations


def test_which_names_the_code_that_runs():
    table = kernels.which()
    assert set(table) == set(reference.__all__)
    for row in table.values():
        assert set(row) == set(BACKENDS)
        assert row["reference"] == "reference"
        assert row["cpu"] in ("cpu", "reference") and row["cuda"] in ("cuda", "reference")


IN_CUPY = {  # with NumPy's meaning, in CuPy 14
    *("abs", "arange", "asarray", "ascontiguousarray", "broadcast_to", "concatenate", "empty", "exp", "full", "isnan"),
    *("log", "maximum", "moveaxis", "pad", "promote_types", "split", "sqrt", "stack", "tanh", "where", "zeros"),
    *("float32", "int32", "uint8", "uint64"),
}


def array_functions(tree: ast.AST) -> set[str]:
    """The names taken from an array module: `xp.NAME` and `array_module(...).NAME`."""

    def is_array_module(node: ast.expr) -> bool:
        name = node.func if isinstance(node, ast.Call) else node
        return isinstance(name, ast.Name) and name.id == ("array_module" if isinstance(node, ast.Call) else "xp")

    return {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and is_array_module(n.value)}


def test_reference_uses_only_what_cupy_has():
    tree = ast.parse(Path(reference.__file__).read_text(encoding="utf-8"))
    assert array_functions(tree) == IN_CUPY
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    assert not {name.split(".")[0] for name in imported} & {"numpy", "cupy", "numba"}


def test_cupy_has_what_reference_uses():
    cupy = pytest.importorskip("cupy")
    assert not {name for name in IN_CUPY if not hasattr(cupy, name)}


@pytest.mark.parametrize(
    ("composed", "part"),
    [
        ("conv2d", "im2col"),
        ("conv2d_input_grad", "col2im"),
        ("conv2d_weight_grad", "im2col"),
        ("conv2d_relu", "conv2d"),
        ("conv2d_relu", "relu"),
        ("bn_relu", "batch_norm"),
        ("bn_relu", "relu"),
        ("bn_relu_grad", "batch_norm_grad"),
        ("bn_relu_eval_grad", "batch_norm_eval_grad"),
        ("lrn", "pad_channels"),
    ],
)
def test_composed_kernels_take_their_parts_from_the_backend_of_the_array(composed, part, monkeypatch):
    class Called(Exception):
        pass

    def spy(*args, **options):
        raise Called

    monkeypatch.setattr(kernels, "of", lambda array: SimpleNamespace(**{**vars(reference), part: spy}))
    x, w, c = np.ones((1, 3, 3, 2)), np.ones((1, 1, 2, 2)), np.ones(2)
    arguments = {
        "conv2d": (x, w),
        "conv2d_input_grad": (x, w, x.shape),
        "conv2d_weight_grad": (x, x, w.shape),
        "conv2d_relu": (x, w),
        "bn_relu": (x, c, c, c, c),
        "bn_relu_grad": (x, x, x, c, c, c),
        "bn_relu_eval_grad": (x, x, x, c, c, c),
        "lrn": (x,),
    }
    with pytest.raises(Called):
        getattr(reference, composed)(*arguments[composed])
