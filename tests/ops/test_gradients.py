"""Every op's gradients against the function itself, on both backends of NumPy arrays."""

from __future__ import annotations

import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from minicnn import gradcheck, ops
from tests.device import np
from tests.ops.calls import CALLS, run

BASIC = {name for name, call in CALLS.items() if "basic" in getattr(ops, name.partition(",")[0]).__module__}
ON_BACKENDS = [(name, k) for name in CALLS for k in ("reference", "cpu") if k == "cpu" or name not in BASIC]
FEWER = settings.get_profile(settings.get_current_profile_name()).max_examples // 3


def test_no_op_is_missing_here():
    public = {name for name in ops.__all__ if not isinstance(getattr(ops, name), types.ModuleType)}
    assert {name.partition(",")[0] for name in CALLS} == public


@pytest.mark.parametrize("name, backend", ON_BACKENDS)
@settings(max_examples=FEWER)
@given(data=st.data())
def test_gradients_are_those_of_the_function(name, backend, data):
    draw = data.draw(CALLS[name].inputs)
    with kernels.use(backend):
        gradcheck(lambda *xs: CALLS[name].f(*xs, **draw.options), *draw.arrays(), seed=draw.seed)


@pytest.mark.parametrize("name, backend", ON_BACKENDS)
@settings(max_examples=FEWER)
@given(data=st.data())
def test_float32_stays_float32_near_float64_and_in_its_own_memory(name, backend, data):
    draw = data.draw(CALLS[name].inputs)
    arrays = draw.arrays(np.float32)
    copies = [a.copy() for a in arrays]
    with kernels.use(backend):
        y, gy, grads = run(name, arrays, draw.options)
        exact, exact_gy, exact_grads = run(name, [a.astype(np.float64) for a in arrays], draw.options)
    for value, expected in zip([y, *grads], [exact, *exact_grads], strict=True):
        assert value.dtype == np.float32
        assert value.shape == expected.shape
        np.testing.assert_allclose(value, expected, rtol=0, atol=2e-4 * max(float(np.abs(expected).max()), 1e-3))
    assert np.array_equal(gy, exact_gy.astype(np.float32)), "backward wrote to gy"
    for a, before in zip(arrays, copies, strict=True):
        assert np.array_equal(a, before), "the op wrote to its argument"
    for i, g in enumerate(grads):
        assert not any(np.shares_memory(g, other) for other in (gy, y, *arrays, *grads[:i]))


ZERO_D = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "maximum": lambda a, b: ops.maximum(a, b),
}


@pytest.mark.parametrize("name", ZERO_D)
def test_a_0d_array_meets_any_other(name):
    zero_d, other = np.array(1.5), np.array([[0.5, 2.0, -1.0]])
    for a, b in ((zero_d, other), (other, zero_d), (zero_d, np.array(-0.7))):
        gradcheck(ZERO_D[name], a, b)
