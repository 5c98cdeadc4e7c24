"""What a Tensor is made of and mixes with: arrays, numbers, dtypes, devices, and the operators between them."""

from __future__ import annotations

import operator
import sys
import types

import numpy
import pytest

from minicnn import Tensor, ops
from tests import device
from tests.device import np


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


@pytest.mark.parametrize("data, kind", [([1.0, 2.0], "list"), (1.0, "float"), ((1, 2), "tuple"), (None, "NoneType")])
def test_only_arrays_make_a_tensor(data, kind):
    with pytest.raises(TypeError, match=f"expected a NumPy or CuPy array, got {kind}: convert it with numpy.asarray"):
        Tensor(data)


def test_a_tensor_of_a_tensor_is_refused():
    with pytest.raises(TypeError, match="expected a NumPy or CuPy array, got Tensor"):
        Tensor(leaf(1.0))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.complex128])
def test_only_floats_can_require_gradients(dtype):
    a = np.ones(2, dtype)
    with pytest.raises(TypeError, match=f"only floating-point arrays can require gradients, this one is {a.dtype}"):
        Tensor(a, requires_grad=True)
    assert Tensor(a).data is a


def test_the_array_is_used_as_it_is():
    a = np.zeros((2, 3), np.float32)
    x = Tensor(a)
    a[0, 1] = 7
    assert x.data is a
    assert x.numpy() is a or device.name != "cpu"
    assert x.detach().data is a
    assert (x.shape, x.dtype, x.ndim, x.size, len(x)) == ((2, 3), np.float32, 2, 6, 2)
    assert x[0, 1].item() == 7
    assert isinstance(x[0, 1].item(), float)


def test_the_representation_says_where_it_comes_from():
    x = leaf(1.0)
    assert repr(x) == "Tensor(array([1.]), requires_grad=True)"
    assert repr(x * 2) == "Tensor(array([2.]), made by mul)"
    assert repr(x.detach()) == "Tensor(array([1.]))"


OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "max": ops.maximum}
SCALARS = [2, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(2), np.float64(1e-3)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scalar", SCALARS, ids=repr)
@pytest.mark.parametrize("name", OPERATORS)
def test_scalars_on_either_side_adopt_the_dtype(name, scalar, dtype):
    op, compute = OPERATORS[name], {"max": np.maximum}.get(name, OPERATORS[name])
    x = leaf(1.0, -2.0, 3.0, dtype=dtype)
    for y, expected in (
        (op(x, scalar), compute(x.data, dtype(scalar))),
        (op(scalar, x), compute(dtype(scalar), x.data)),
    ):
        assert isinstance(y, Tensor)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y.data, expected)
        y.backward(np.ones(3, dtype))
        assert x.grad.dtype == dtype


@pytest.mark.parametrize("exponent", [2, 2.0, np.float64(2), np.int64(2), np.float32(2)], ids=repr)
def test_an_exponent_of_any_kind_keeps_float32(exponent):
    x = leaf(1.0, -2.0, dtype=np.float32)
    y = x**exponent
    assert y.dtype == np.float32
    y.backward(np.ones(2, np.float32))
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [2, -4])


@pytest.mark.parametrize("kind", [float, np.float64])
def test_numpy_numbers_as_options_keep_float32(kind):
    x = Tensor(np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 2, 2, 3), requires_grad=True)
    one = np.ones(3, np.float32)
    labels = np.array([1])
    calls = {
        "lrn": lambda: ops.lrn(x, alpha=kind(0.5), beta=kind(0.75), k=kind(2)),
        "lcn": lambda: ops.lcn(x, size=3, eps=kind(1e-8)),
        "batch_norm": lambda: ops.batch_norm(x, one, one, eps=kind(1e-5)),
        "bn_relu": lambda: ops.bn_relu(x, one, one, eps=kind(1e-5)),
        "cross_entropy": lambda: ops.cross_entropy(x.reshape(1, 12), labels, label_smoothing=kind(0.1)),
    }
    for name, call in calls.items():
        x.grad = None
        y = call()
        assert y.dtype == np.float32, name
        y.backward(np.ones_like(y.data))
        assert x.grad.dtype == np.float32, name


@pytest.mark.parametrize("name", OPERATORS)
def test_an_array_on_the_left_leaves_the_operation_to_the_tensor(name):
    a, x = np.array([[1.0, 2.0], [3.0, 5.0]]), leaf(2.0, 4.0)
    y = OPERATORS[name](a, x)
    assert isinstance(y, Tensor)
    np.testing.assert_array_equal(y.data, {"max": np.maximum}.get(name, OPERATORS[name])(a, x.data))
    y.backward(np.ones((2, 2)))
    assert x.grad.shape == (2,)


def test_matmul_with_an_array_on_either_side():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4) - 5
    for y in (Tensor(a) @ b, a @ Tensor(b), Tensor(a) @ Tensor(b)):
        assert isinstance(y, Tensor)
        np.testing.assert_array_equal(y.data, a @ b)


@pytest.mark.parametrize("name", OPERATORS)
def test_mixed_dtypes_are_refused_with_both_named(name):
    single, double = leaf(1.0, dtype=np.float32), leaf(1.0)
    for a, b in ((single, double), (double, single), (single, double.data), (double.data, single)):
        with pytest.raises(TypeError, match=r"dtypes float32 and float64 are mixed; convert one with .astype"):
            OPERATORS[name](a, b)


def test_mixed_dtypes_are_refused_in_a_layer_and_the_op_is_named():
    x, w = np.ones((1, 3, 3, 1), np.float32), np.ones((2, 2, 1, 1))
    with pytest.raises(TypeError, match=r"^conv2d: dtypes float32 and float64 are mixed"):
        ops.conv2d(Tensor(x), Tensor(w))
    with pytest.raises(TypeError, match=r"^cross_entropy: dtypes float32 and float64"):
        ops.cross_entropy(Tensor(np.ones((1, 2), np.float32)), np.ones((1, 2)))


def test_an_integer_array_does_not_turn_float32_into_float64():
    """NumPy would: a silent up-cast, and a gradient of another dtype than its argument."""
    x = leaf(1.0, 2.0, dtype=np.float32)
    for a, b in ((x, np.array([1, 2])), (np.array([1, 2]), x), (x, Tensor(np.array([1, 2])))):
        with pytest.raises(TypeError, match=r"^mul: .*float32.*float64"):
            ops.mul(a, b)
    mask = x * np.array([True, False])  # loses nothing
    mask.backward(np.ones(2, np.float32))
    assert mask.dtype == x.grad.dtype == np.float32


@pytest.fixture
def elsewhere(monkeypatch):
    """An array of NumPy's beside those of a device, or one that claims to come from CuPy."""
    if device.name != "cpu":
        return numpy.ones(2)
    monkeypatch.setitem(sys.modules, "cupy", types.ModuleType("cupy"))
    Array = type("ndarray", (), {"__module__": "cupy", "dtype": np.dtype(np.float64), "shape": (2,), "ndim": 1})
    return Array()


@pytest.mark.parametrize("name", OPERATORS)
def test_devices_do_not_mix(name, elsewhere):
    x = leaf(1.0, 2.0)
    for a, b in ((x, Tensor(elsewhere)), (Tensor(elsewhere), x), (x, elsewhere)):
        with pytest.raises(
            TypeError, match=r"NumPy and CuPy arrays are mixed; move them to one device with minicnn.dev"
        ):
            OPERATORS[name](a, b)


def test_the_upstream_gradient_comes_from_the_same_device(elsewhere):
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match="on its own device"):
        (x * 2).backward(elsewhere)


def test_a_bias_by_keyword_gets_its_gradient():
    x, w, b = np.ones((2, 3, 3, 1)), np.ones((2, 2, 1, 3)), leaf(1.0, 2.0, 3.0)
    y = ops.conv2d(x, w, b=b)
    gy = np.random.default_rng(0).standard_normal(y.shape)
    y.backward(gy)
    np.testing.assert_allclose(b.grad, gy.sum(axis=(0, 1, 2)), rtol=1e-12)
    by_position = ops.conv2d(x, w, b)
    np.testing.assert_array_equal(y.data, by_position.data)


def test_arguments_by_keyword_in_any_order_get_their_gradients():
    x, gamma, beta = np.arange(6.0).reshape(3, 2), leaf(1.0, 2.0), leaf(0.5, -0.5)
    gy = np.array([[1.0, 2], [3, 5], [4, 1]])
    ops.batch_norm(x, beta=beta, gamma=gamma).backward(gy)
    np.testing.assert_allclose(beta.grad, gy.sum(axis=0))
    normal = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
    np.testing.assert_allclose(gamma.grad, (gy * normal).sum(axis=0))


def test_dlpack_shares_memory():
    x = Tensor(np.arange(6.0).reshape(2, 3))
    a = np.from_dlpack(x)
    assert np.shares_memory(a, x.data)
    np.testing.assert_array_equal(a, x.data)


A = np.random.default_rng(0).uniform(0.5, 2, (2, 3, 4))
METHODS = {
    "exp": (lambda x: x.exp(), np.exp),
    "log": (lambda x: x.log(), np.log),
    "sqrt": (lambda x: x.sqrt(), np.sqrt),
    "neg": (lambda x: -x, np.negative),
    "**": (lambda x: x**3, lambda a: a**3),
    "pow": (lambda x: x.pow(0.5), lambda a: a**0.5),
    "maximum": (lambda x: x.maximum(1.0), lambda a: np.maximum(a, 1)),
    "sum": (lambda x: x.sum(), np.sum),
    "sum, axis": (lambda x: x.sum(axis=-1), lambda a: a.sum(axis=-1)),
    "sum, axes, keepdims": (lambda x: x.sum(axis=(0, -1), keepdims=True), lambda a: a.sum(axis=(0, -1), keepdims=True)),
    "mean": (lambda x: x.mean(), np.mean),
    "mean, axes": (lambda x: x.mean(axis=(0, 1)), lambda a: a.mean(axis=(0, 1))),
    "mean, keepdims": (lambda x: x.mean(axis=1, keepdims=True), lambda a: a.mean(axis=1, keepdims=True)),
    "max": (lambda x: x.max(), np.max),
    "max, axis": (lambda x: x.max(axis=1), lambda a: a.max(axis=1)),
    "max, keepdims": (lambda x: x.max(axis=(0, 2), keepdims=True), lambda a: a.max(axis=(0, 2), keepdims=True)),
    "reshape": (lambda x: x.reshape(4, -1), lambda a: a.reshape(4, -1)),
    "reshape, tuple": (lambda x: x.reshape((6, 4)), lambda a: a.reshape(6, 4)),
    "reshape, -1": (lambda x: x.reshape(-1), np.ravel),
    "transpose": (lambda x: x.transpose(), np.transpose),
    "transpose, axes": (lambda x: x.transpose(2, 0, 1), lambda a: a.transpose(2, 0, 1)),
    "transpose, tuple": (lambda x: x.transpose((0, -1, 1)), lambda a: a.transpose(0, -1, 1)),
    "flatten": (lambda x: x.flatten(), lambda a: a.reshape(2, 12)),
    "pad": (lambda x: x.pad(1), lambda a: np.pad(a, 1)),
    "pad, (before, after)": (lambda x: x.pad((1, 2)), lambda a: np.pad(a, (1, 2))),
    "pad, each axis": (lambda x: x.pad(((0, 1), (2, 0), (0, 0))), lambda a: np.pad(a, ((0, 1), (2, 0), (0, 0)))),
    "[number]": (lambda x: x[1], lambda a: a[1]),
    "[slices]": (lambda x: x[:, ::-2, 1:3], lambda a: a[:, ::-2, 1:3]),
    "[..., None]": (lambda x: x[..., None, 0], lambda a: a[..., None, 0]),
    "[array]": (lambda x: x[:, np.array([0, 2, 0])], lambda a: a[:, [0, 2, 0]]),
    "[list]": (lambda x: x[[1, 1, 0]], lambda a: a[[1, 1, 0]]),
    "[mask]": (lambda x: x[A > 1], lambda a: a[A > 1]),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_methods_equal_numpys(name, dtype):
    method, compute = METHODS[name]
    x = Tensor(A.astype(dtype), requires_grad=True)
    y, expected = method(x), compute(A.astype(dtype))
    assert y.dtype == dtype
    assert y.shape == np.shape(expected)
    np.testing.assert_allclose(y.data, expected, rtol=1e-6 if dtype == np.float32 else 1e-15)
    y.backward(np.ones_like(y.data))
    assert (x.grad.shape, x.grad.dtype) == (x.shape, dtype)
