"""Level 3: the kernels through CuPy, cuBLAS included, give on its arrays what the reference gives on NumPy's."""

from __future__ import annotations

import contextlib

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kernels
from kernels import cuda, reference
from kernels.cuda import gemm
from tests import device
from tests.device import host, np

pytestmark = pytest.mark.skipif("config.getoption('device') == 'cpu'", reason="needs --device=host or --device=cuda")


def random(*shape: int, seed: int = 0) -> numpy.ndarray:
    return numpy.random.default_rng(seed).uniform(-1, 1, shape).astype(numpy.float32)


def matrix(values: numpy.ndarray, transposed: bool) -> np.ndarray:
    """The values on the device, in C order or as the transpose of what is."""
    return np.asarray(values.swapaxes(-1, -2).copy()).swapaxes(-1, -2) if transposed else np.asarray(values)


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float16])
@pytest.mark.parametrize("batch", [(), (1,), (3,)])
@given(
    sizes=st.tuples(*[st.integers(1, 9)] * 3),
    transposed=st.tuples(st.booleans(), st.booleans()),
    out=st.sampled_from([None, numpy.float16, numpy.float32]),
    accumulate=st.booleans(),
)
def test_products_in_every_layout(dtype, batch, sizes, transposed, out, accumulate):
    m, k, n = sizes
    a, b = random(*batch, m, k).astype(dtype), random(*batch, k, n, seed=1).astype(dtype)
    expected = numpy.matmul(a, b, dtype=numpy.float32)
    factors = matrix(a, transposed[0]), matrix(b, transposed[1])
    if out is None:
        result = gemm.matmul(*factors)
        assert result.dtype == dtype
    else:
        out = numpy.float32 if dtype == numpy.float32 else out
        result = np.full(expected.shape, 0.5, out)
        assert gemm.matmul(*factors, out=result, accumulate=accumulate) is result
        expected = expected + 0.5 * accumulate
    tolerance = 1e-5 if result.dtype == numpy.float32 else 1e-2
    numpy.testing.assert_allclose(host(result), expected, rtol=tolerance, atol=tolerance)


def test_updates_together_reach_every_array():
    weights = [random(n, seed=n) for n in (3, 5000, 1)]
    on_device = [np.asarray(w) for w in weights]
    velocities = [np.zeros_like(w) for w in on_device]
    with cuda.together():
        for w, v in zip(on_device, velocities, strict=True):
            cuda.sgd_update(w, np.full(w.shape, 2.0, numpy.float32), v, lr=0.25, momentum=0.9)
    for w, v, before in zip(on_device, velocities, weights, strict=True):
        numpy.testing.assert_allclose(host(w), before - 0.5, rtol=1e-5, atol=1e-6)
        assert (host(v) == 2).all()


X, W, C = random(2, 5, 5, 4), random(3, 3, 4, 6), random(4)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("conv2d", (X, W, random(6))),
        ("conv2d", (X, W[:1, :1])),
        ("conv2d_relu", (X, W, random(6))),
        ("conv2d_input_grad", (random(2, 3, 3, 6), W)),
        ("conv2d_weight_grad", (random(2, 3, 3, 6), X)),
        ("linear", (random(3, 4), random(4, 5), random(5))),
        ("linear_input_grad", (random(3, 5), random(4, 5))),
        ("linear_weight_grad", (random(3, 5), random(3, 4))),
        ("batch_norm", (X, C, C, C, abs(C))),
        ("bn_relu", (X, C, C, C, abs(C), X)),
        ("batch_norm_grad", (X, X, C, C, abs(C))),
        ("relu_grad", (X, X)),
        ("lrn_grad", (X, X)),
        ("lcn_grad", (X, X)),
        ("softmax_grad", (random(3, 4), random(3, 4))),
        ("sgd_update", (X, X, X)),
    ],
)
def test_a_numpy_array_among_cupys_is_a_type_error_of_one_line(name, arguments):
    rest = {"conv2d_input_grad": (X.shape,), "conv2d_weight_grad": (W.shape,)}.get(name, ())
    options = {"lr": 0.1, "momentum": 0.9} if name == "sgd_update" else {}
    for stays in range(1, len(arguments)):
        given = [a if i == stays else np.asarray(a) for i, a in enumerate(arguments)]
        for block in (contextlib.nullcontext(), cuda.together()):
            with pytest.raises(TypeError) as error, block:
                getattr(cuda, name)(*given, *rest, **options)
            assert "numpy" in str(error.value) and "\n" not in str(error.value)


def test_the_device_is_that_of_the_array():
    assert kernels.of(np.asarray(X)) is cuda and device.name == "cuda"
    numpy.testing.assert_allclose(host(cuda.relu(np.asarray(X))), reference.relu(X))
