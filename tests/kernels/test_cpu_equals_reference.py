"""Every kernel of the CPU backend gives what the reference gives, in both precisions, and leaves its inputs alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kernels.cpu as cpu
from kernels.cpu import batch_normalisation, columns, pieces
from tests.kernels.cases import CASES
from tests.strategies import Drawn, convolutions, drawn, pools, spread

DTYPES = {np.float32: 2e-5, np.float64: 1e-12}
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Blocks so small that small examples have many, the last of them incomplete."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "BLOCK_ROWS", (7, 7))
        patch.setattr(columns, "PARTIAL_BYTES", 2000)
        patch.setattr(batch_normalisation, "CHUNK", 20)
        patch.setattr(pieces, "PIECE", 20)
        yield


def same(value, expected, tolerance: float) -> None:
    """Equal shapes and dtypes, and elements within `tolerance` of the largest; one array or several."""
    if isinstance(expected, tuple):
        assert isinstance(value, tuple) and len(value) == len(expected)
        for v, e in zip(value, expected, strict=True):
            same(v, e, tolerance)
        return
    assert value.shape == expected.shape and value.dtype == expected.dtype
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1e-3)
    np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * scale)


def upstream(draw: Drawn, y: np.ndarray) -> np.ndarray:
    return np.random.default_rng(draw.seed + 1).uniform(-1, 1, y.shape).astype(y.dtype)


@both_dtypes
@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_value_and_gradients(name, dtype, data, reference):
    case, draw = CASES[name], data.draw(CASES[name].inputs)
    arrays = draw.arrays(dtype)
    before = [a.copy() for a in arrays]
    y = case.forward(reference, *arrays, **draw.options)
    same(case.forward(cpu, *arrays, **draw.options), y, DTYPES[dtype])
    gy = upstream(draw, y)
    for given_gy in (gy, np.repeat(gy, 2, axis=-1)[..., ::2]):
        grads = case.backward(cpu, given_gy, y, *arrays, **draw.options)
        # ten times: batch norm's gradient is a small difference of large terms
        same(tuple(grads), tuple(case.backward(reference, gy, y, *arrays, **draw.options)), 10 * DTYPES[dtype])
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


channels = st.integers(1, 70)
sizes = st.integers(1, 3)
wide = st.builds(
    lambda n, h, w, kh, kw, c, o: ((n, h + kh, w + kw, c), (kh, kw, c, o), (o,)),
    *(sizes, st.integers(0, 12), st.integers(0, 12), sizes, sizes, channels, channels),
)
wide_options = {"stride": st.sampled_from([1, 2, (1, 3)]), "pad": st.sampled_from([0, 1, ((0, 2), (1, 0))])}


@both_dtypes
@given(draw=drawn(wide, **wide_options))
def test_convolution_with_any_number_of_channels(dtype, draw, reference):
    x, w, b = draw.arrays(dtype)
    y = reference.conv2d(x, w, b, **draw.options)
    gy = upstream(draw, y)
    for k in (cpu.conv2d, cpu.conv2d_relu):
        same(k(x, w, b, **draw.options), getattr(reference, k.__name__)(x, w, b, **draw.options), DTYPES[dtype])
    for k, *arguments in ((cpu.conv2d_input_grad, gy, w, x.shape), (cpu.conv2d_weight_grad, gy, x, w.shape)):
        same(k(*arguments, **draw.options), getattr(reference, k.__name__)(*arguments, **draw.options), DTYPES[dtype])


@given(draw=convolutions())
def test_convolution_without_bias_on_views_of_images(draw, reference):
    x, w, _ = draw.arrays()
    flipped = x[::-1, :, ::-1]
    same(cpu.conv2d(flipped, w, **draw.options), reference.conv2d(flipped, w, **draw.options), 1e-12)


@both_dtypes
@given(draw=drawn(wide))
def test_normalisation_and_pooling_with_any_number_of_channels(dtype, draw, reference):
    x, _, _ = draw.arrays(dtype)
    c, tolerance = x.shape[-1], DTYPES[dtype]
    gamma, beta = np.linspace(0.5, 2, c, dtype=dtype), np.linspace(-1, 1, c, dtype=dtype)
    mean, var = reference.batch_norm_stats(x)
    same(cpu.batch_norm_stats(x), (mean, var), tolerance)
    same(cpu.bias_grad(x), reference.bias_grad(x), 10 * tolerance)
    y = reference.bn_relu(x, gamma, beta, mean, var, x)
    same(cpu.bn_relu(x, gamma, beta, mean, var, x), y, tolerance)
    gy = upstream(draw, x)
    for name in ("bn_relu_grad", "bn_relu_eval_grad"):
        arguments = (gy, y, x, gamma, mean, var + dtype(1))
        same(getattr(cpu, name)(*arguments), getattr(reference, name)(*arguments), 10 * tolerance)
    same(cpu.max_pool(x, 1, stride=2), reference.max_pool(x, 1, stride=2), 0)
    same(cpu.global_avg_pool(x), reference.global_avg_pool(x), 10 * tolerance)
    same(cpu.lrn(x, size=5, alpha=1.0), reference.lrn(x, size=5, alpha=1.0), tolerance)


@both_dtypes
@pytest.mark.parametrize("size", [1, 5, 9])
@given(draw=drawn(st.tuples(st.tuples(sizes, st.integers(3, 14), st.integers(3, 14), st.integers(2, 70)))))
def test_contrast_normalisation_with_any_number_of_channels(size, dtype, draw, reference):
    (x,) = draw.arrays(dtype)
    gy = upstream(draw, x)
    y, gx = reference.lcn(x, size=size), reference.lcn_grad(gy, x, size=size)
    same(cpu.lcn(x, size=size), y, DTYPES[dtype])
    same(cpu.lcn_grad(gy, x, size=size), gx, 10 * DTYPES[dtype])


def test_contrast_normalisation_of_flat_maps(reference):
    x = np.zeros((2, 12, 5, 3))
    assert not cpu.lcn(x).any() and not cpu.lcn_grad(x, x).any()
    x[1, 0, 0] = 1  # far from it σ stays exactly 0
    gy = np.random.default_rng(0).uniform(-1, 1, x.shape)
    same(cpu.lcn(x, size=3), reference.lcn(x, size=3), 1e-12)
    same(cpu.lcn_grad(gy, x, size=3), reference.lcn_grad(gy, x, size=3), 1e-12)


@given(draw=pools(symmetric=False), special=st.sampled_from([np.nan, -np.inf, 0.0]))
def test_max_pool_with_ties_nan_and_infinity(draw, special, reference):
    (x,) = draw.arrays(np.float32)
    x[np.random.default_rng(draw.seed).random(x.shape) < 0.4] = special
    y, winners = reference.max_pool(x, **draw.options)
    same(cpu.max_pool(x, **draw.options), (y, winners), 0)
    gy = upstream(draw, y)
    expected = reference.max_pool_grad(gy, winners, x.shape, **draw.options)
    same(cpu.max_pool_grad(gy, winners, x.shape, **draw.options), expected, 1e-6)


def test_max_pool_of_windows_with_more_taps_than_a_byte_counts(reference):
    x = spread(np.random.default_rng(0), (2, 20, 20, 3))
    y, winners = reference.max_pool(x, 17, stride=2)
    same(cpu.max_pool(x, 17, stride=2), (y, winners), 0)
    same(
        cpu.max_pool_grad(y, winners, x.shape, 17, stride=2),
        reference.max_pool_grad(y, winners, x.shape, 17, stride=2),
        0,
    )


def test_variance_beside_a_large_mean():
    x = 1000 + np.random.default_rng(0).normal(size=(50, 8, 8, 3))
    mean, var = cpu.batch_norm_stats(x.astype(np.float32))
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, x.astype(np.float32).astype(np.float64).var((0, 1, 2)), rtol=1e-4)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_nan_stays_visible():
    x = np.array([[np.nan, -1.0, 2.0, np.inf]] * 40, np.float32)
    one, zero = np.ones(4, np.float32), np.zeros(4, np.float32)
    w, image = np.eye(4, dtype=np.float32)[None, None], x.reshape(1, 5, 8, 4)
    for y in (
        cpu.relu(x),
        cpu.bn_relu(x, one, zero, zero, one),
        cpu.conv2d_relu(image, w),
        cpu.conv2d_relu(np.ones_like(image), w, None, image),
    ):
        y = y.reshape(-1, 4)
        assert np.isnan(y[:, 0]).all()
    one_bad = np.zeros((2, 20, 20, 3), np.float32)
    one_bad[1, 3, 3, 1] = np.nan  # through the mean of σ it reaches all of its map, but no other
    assert not np.isnan(cpu.lcn(one_bad)[0]).any() and np.isnan(cpu.lcn(one_bad)[1]).all()
    assert np.isnan(cpu.batch_norm_stats(x)[0][0]) and np.isnan(cpu.bias_grad(x)[0])


UPDATES = {  # name: (number of state arrays, options that are drawn)
    "sgd_update": (1, {"momentum": st.sampled_from([0.0, 0.9]), "nesterov": st.booleans()}),
    "rmsprop_update": (2, {"momentum": st.sampled_from([0.0, 0.9]), "eps_inside": st.booleans()}),
    "adam_update": (2, {"decoupled": st.booleans(), "step": st.integers(1, 5)}),
}


@both_dtypes
@pytest.mark.parametrize("name", UPDATES)
@given(data=st.data())
def test_optimiser_update(name, dtype, data, reference):
    states, options = UPDATES[name]
    factors = st.sampled_from([None, np.full((), 0.5, np.float32), np.zeros((), np.float32)])
    options = {**options, "lr": st.just(0.1), "weight_decay": st.sampled_from([0.0, 0.01]), "factor": factors}
    draw = data.draw(drawn(st.sampled_from([((3, 3, 2, 5),), ((7,),)]), **options))
    (w,) = draw.arrays(dtype)
    start = [w, w[::-1], *(abs(w) for _ in range(states))]
    ours, theirs = ([np.array(a, order="K") for a in start] for _ in range(2))
    if draw.layout != "contiguous":
        ours = [np.repeat(a, 2, axis=-1)[..., ::2] for a in ours]
    getattr(cpu, name)(*ours, **draw.options)
    getattr(reference, name)(*theirs, **draw.options)
    same(tuple(ours), tuple(theirs), DTYPES[dtype])
    assert np.array_equal(ours[1], start[1])  # the gradient
    if not draw.options.get("momentum", True):
        states_without_velocity = [*theirs[:-1], None]
        getattr(cpu, name)(*states_without_velocity, **draw.options)


@both_dtypes
def test_moving_average(dtype, reference):
    w = np.linspace(0, 1, 100, dtype=dtype)
    ours, theirs = w[::-1].copy(), w[::-1].copy()
    cpu.ema_update(ours, w, decay=0.9)
    reference.ema_update(theirs, w, decay=0.9)
    same(ours, theirs, DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (7,), (3, 5, 4)])
def test_sum_in_place(dtype, shape, reference):
    g = spread(np.random.default_rng(0), shape).astype(dtype)
    ours, theirs = g.T.copy().T, g.copy()
    cpu.sum_update(ours, g)
    reference.sum_update(theirs, g)
    same(ours, theirs, 0)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat_along_any_axis(axis, reference):
    x = spread(np.random.default_rng(0), (2, 3, 4, 5))
    y = cpu.concat(x, x, axis=axis)
    same(y, reference.concat(x, x, axis=axis), 0)
    same(
        cpu.concat_grad(y, (1, 2 * x.shape[axis] - 1), axis=axis),
        reference.concat_grad(y, (1, 2 * x.shape[axis] - 1), axis=axis),
        0,
    )
