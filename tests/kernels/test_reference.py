"""The reference against its definitions: loops that say what a kernel means, numerical derivatives, identities."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from kernels.geometry import windows
from tests.device import np
from tests.kernels.cases import CASES
from tests.strategies import Drawn, convolutions, drawn, maps, pools, spread

every_case = pytest.mark.parametrize("name", CASES)
seeds = st.integers(0, 2**32 - 1)


def upstream(draw: Drawn, y: np.ndarray) -> np.ndarray:
    """A random gradient of y: ones would hide a transposed convolution and make batch norm's gradient vanish."""
    return spread(np.random.default_rng(draw.seed + 1), y.shape).astype(y.dtype)


def close(value: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Equal within `tolerance` of the largest element."""
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-30))


# ---- Every kernel of the table -------------------------------------------------------------------------------------


@every_case
@given(data=st.data())
def test_gradient_is_the_derivative_in_a_random_direction(name, data, reference):
    case, draw = CASES[name], data.draw(CASES[name].inputs)
    arrays = draw.arrays()
    y = case.forward(reference, *arrays, **draw.options)
    gy = upstream(draw, y)
    grads = case.backward(reference, gy, y, *arrays, **draw.options)
    rng = np.random.default_rng(draw.seed + 2)
    directions = [rng.uniform(-1, 1, a.shape) for a in arrays]

    def derivative(step: float) -> float:
        def loss(t: float) -> float:
            moved = [a + t * d for a, d in zip(arrays, directions, strict=True)]
            return float((case.forward(reference, *moved, **draw.options) * gy).sum())

        return (loss(step) - loss(-step)) / (2 * step)

    terms = [g * d for g, d in zip(grads, directions, strict=True)]
    tolerance = 1e-6 * max(sum(np.abs(t).sum() for t in terms), 1e-3)
    numeric = derivative(1e-5)
    if abs(numeric - derivative(3e-6)) > tolerance / 2:
        reject()  # a kink lies between: there is no derivative to compare with
    assert abs(sum(t.sum() for t in terms) - numeric) < tolerance


@every_case
@given(data=st.data())
def test_float32_follows_float64_keeps_its_dtype_and_leaves_the_inputs_alone(name, data, reference):
    case, draw = CASES[name], data.draw(CASES[name].inputs)
    wide, narrow = draw.arrays(), draw.arrays(np.float32)
    y = case.forward(reference, *wide, **draw.options)
    gy = upstream(draw, y)
    grads = case.backward(reference, gy, y, *wide, **draw.options)
    assert all(g.shape == a.shape and g.dtype == np.float64 for g, a in zip(grads, wide, strict=True))

    y32 = case.forward(reference, *narrow, **draw.options)
    gy32, y64_as_32 = gy.astype(np.float32), y.astype(np.float32)  # rounding must not move y across ReLU's kink
    grads32 = case.backward(reference, gy32, y64_as_32, *narrow, **draw.options)
    for value, expected in zip((y32, *grads32), (y, *grads), strict=True):
        assert value.dtype == np.float32
        close(value, expected, 2e-4)

    for used, fresh in ((wide, draw.arrays()), (narrow, draw.arrays(np.float32))):
        assert all(np.array_equal(a, b) for a, b in zip(used, fresh, strict=True))
    assert np.array_equal(gy, upstream(draw, y)) and np.array_equal(gy32, gy.astype(np.float32))


@every_case
@given(data=st.data())
def test_layout_in_memory_changes_nothing(name, data, reference):
    case, draw = CASES[name], data.draw(CASES[name].inputs)
    arrays, plain = draw.arrays(), [np.ascontiguousarray(a) for a in draw.arrays()]
    y, expected = (case.forward(reference, *inputs, **draw.options) for inputs in (arrays, plain))
    close(y, expected, 1e-14)
    gy = upstream(draw, y)
    strided = np.repeat(gy, 2, axis=0)[::2]
    grads = case.backward(reference, strided, y, *arrays, **draw.options)
    for value, wanted in zip(grads, case.backward(reference, gy, y, *plain, **draw.options), strict=True):
        close(value, wanted, 1e-13)


# ---- Windows, convolution, pooling: the definition, one window at a time -------------------------------------------


def window_positions(shape, size, **options):
    """For each window (oh, ow): the (kh, kw, h, w) of its taps that lie inside the map."""
    rows, cols = windows(shape, size, **options)
    for oh, ow in itertools.product(range(rows.outputs), range(cols.outputs)):
        taps = []
        for kh, kw in itertools.product(range(rows.size), range(cols.size)):
            h = oh * rows.stride - rows.before + kh * rows.dilation
            w = ow * cols.stride - cols.before + kw * cols.dilation
            if 0 <= h < shape[1] and 0 <= w < shape[2]:
                taps.append((kh, kw, h, w))
        yield oh, ow, taps


@given(draw=convolutions())
def test_im2col_lays_windows_side_by_side_and_col2im_is_its_adjoint(draw, reference):
    x, w, _ = draw.arrays()
    options = {name: draw.options[name] for name in ("stride", "pad", "dilation")}
    col = reference.im2col(x, w.shape[:2], **options)
    expected = np.zeros_like(col)
    for oh, ow, taps in window_positions(x.shape, w.shape[:2], **options):
        for kh, kw, ih, iw in taps:
            expected[:, oh, ow, kh, kw] = x[:, ih, iw]
    assert np.array_equal(col, expected)

    c = upstream(draw, col)
    back = reference.col2im(c, x.shape, **options)
    assert back.shape == x.shape
    assert abs((col * c).sum() - (x * back).sum()) < 1e-12 * max(1, np.abs(col * c).sum())


@given(draw=convolutions())
def test_conv2d_is_the_sum_over_each_window(draw, reference):
    x, w, b = draw.arrays()
    groups = draw.options["groups"]
    options = {name: draw.options[name] for name in ("stride", "pad", "dilation")}
    y = reference.conv2d(x, w, b, **draw.options)
    expected = np.zeros_like(y) + b
    xs, ws, ys = (np.split(a, groups, axis=-1) for a in (x, w, expected))  # the ys are views of `expected`
    for oh, ow, taps in window_positions(x.shape, w.shape[:2], **options):
        for (kh, kw, ih, iw), g in itertools.product(taps, range(groups)):
            ys[g][:, oh, ow] += xs[g][:, ih, iw] @ ws[g][kh, kw]
    close(y, expected, 1e-12)


@given(draw=pools(symmetric=False))
def test_pools_are_the_maximum_and_the_mean_of_each_window(draw, reference):
    (x,) = draw.arrays()
    y, winners = reference.max_pool(x, **draw.options)
    mean = reference.avg_pool(x, **draw.options)
    assert winners.dtype == np.uint8
    kw_size = draw.options["size"][1]
    for oh, ow, taps in window_positions(x.shape, **draw.options):
        inside = np.stack([x[:, h, w] for _, _, h, w in taps])  # (taps, N, C)
        numbers = np.array([kh * kw_size + kw for kh, kw, _, _ in taps])
        assert np.array_equal(y[:, oh, ow], inside.max(axis=0))
        assert np.array_equal(winners[:, oh, ow], numbers[inside.argmax(axis=0)])
        close(mean[:, oh, ow], inside.mean(axis=0), 1e-12)


def test_max_pool_of_negative_values_ignores_the_padding(reference):
    x = -1 - np.arange(9.0).reshape(1, 3, 3, 1)
    y, winners = reference.max_pool(x, 3, stride=2, pad=1)
    assert y.ravel().tolist() == [-1, -2, -4, -5]
    assert winners.ravel().tolist() == [4, 3, 1, 0]


def test_max_pool_takes_the_first_of_equal_values(reference):
    _, winners = reference.max_pool(np.zeros((1, 4, 4, 2)), 2)
    assert not winners.any()
    gx = reference.max_pool_grad(np.ones((1, 2, 2, 2)), winners, (1, 4, 4, 2), 2)
    assert gx[0, :, :, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_max_pool_passes_nan_on(reference):
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    x[0, 0, 1] = np.nan
    y, winners = reference.max_pool(x, 2)
    assert np.isnan(y[0, 0, 0, 0]) and winners[0, 0, 0, 0] == 1
    assert y.ravel()[1:].tolist() == [7, 13, 15]


def test_winners_of_large_windows_need_more_than_a_byte(reference):
    x = np.arange(17.0 * 17).reshape(1, 17, 17, 1)
    assert reference.max_pool(x[:, :16, :16], 16)[1].dtype == np.uint8
    y, winners = reference.max_pool(x, 17)
    assert winners.dtype == np.int32 and winners.item() == 288 and y.item() == 288


# ---- Normalisation -------------------------------------------------------------------------------------------------


@given(seed=seeds)
def test_batch_statistics_survive_a_mean_far_from_zero(seed, reference):
    x = (1000 + spread(np.random.default_rng(seed), (8, 9, 9, 3))).astype(np.float32)
    mean, var = reference.batch_norm_stats(x)
    close(mean, x.mean(axis=(0, 1, 2), dtype=np.float64), 1e-6)
    close(var, x.var(axis=(0, 1, 2), dtype=np.float64), 1e-3)


def test_running_statistics_move_in_place_towards_the_unbiased_variance(reference):
    running_mean, running_var = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    reference.batch_norm_update(
        running_mean, running_var, np.array([5.0, 6.0]), np.array([6.0, 9.0]), count=4, momentum=0.25
    )
    assert running_mean.tolist() == [2.0, 3.0]
    assert running_var.tolist() == [0.75 * 3 + 0.25 * 8, 0.75 * 4 + 0.25 * 12]


@given(draw=CASES["lrn"].inputs)
def test_lrn_is_the_papers_formula(draw, reference):
    (x,) = draw.arrays()
    size, alpha, beta, k = (draw.options[name] for name in ("size", "alpha", "beta", "k"))
    y = reference.lrn(x, **draw.options)
    c = x.shape[-1]
    for i in range(c):
        around = x[..., max(0, i - size // 2) : min(c, i + size // 2 + 1)]
        close(y[..., i], x[..., i] / (k + alpha * (around**2).sum(axis=-1)) ** beta, 1e-12)


@given(draw=CASES["lcn"].inputs)
def test_lcn_is_the_papers_formula(draw, reference):
    (x,) = draw.arrays()
    size, eps = draw.options["size"], draw.options["eps"]
    n, h, w, c = x.shape
    offsets = range(-(size // 2), size // 2 + 1)
    weights = {(p, q): np.exp(-(p * p + q * q) / (2 * (size / 4) ** 2)) for p in offsets for q in offsets}
    total = sum(weights.values()) * c  # they sum to 1 over the window and all maps

    def weighted_sum(a):
        out = np.zeros((n, h, w))
        for j, k, (p, q) in itertools.product(range(h), range(w), weights):
            if 0 <= j + p < h and 0 <= k + q < w:
                out[:, j, k] += weights[p, q] / total * a[:, j + p, k + q].sum(axis=-1)
        return out

    v = x - weighted_sum(x)[..., None]
    sigma = np.sqrt(weighted_sum(v**2))
    floor = np.maximum(sigma.mean(axis=(1, 2), keepdims=True), eps)
    close(reference.lcn(x, **draw.options), v / np.maximum(sigma, floor)[..., None], 1e-10)


def test_lcn_of_a_flat_map_and_its_gradient_are_finite(reference):
    x = np.zeros((1, 5, 5, 2))
    assert not reference.lcn(x).any()
    assert np.isfinite(reference.lcn_grad(np.ones_like(x), x)).all()
    x[0, 0, 0] = 1  # far from it σ stays exactly 0
    assert np.isfinite(reference.lcn_grad(np.ones_like(x), x, size=3)).all()


# ---- Activations, loss, moves --------------------------------------------------------------------------------------


def test_activations_and_softmax_neither_overflow_nor_lose_nan(reference):
    x = np.array([[-1000.0, 1000.0, np.nan]], dtype=np.float32)
    with np.errstate(over="raise", invalid="raise"):
        assert np.array_equal(reference.relu(x), [[0, 1000, np.nan]], equal_nan=True)
        assert np.array_equal(reference.sigmoid(x), [[0, 1, np.nan]], equal_nan=True)
        assert np.array_equal(reference.tanh(x), [[-1, 1, np.nan]], equal_nan=True)
    assert reference.softmax(x[:, :2]).tolist() == [[0, 1]]
    losses, p = reference.cross_entropy(x[:, :2], np.array([0]))
    assert losses.tolist() == [2000] and p.tolist() == [[0, 1]]


def test_cross_entropy_with_an_excluded_class_is_finite(reference):
    losses, p = reference.cross_entropy(np.array([[0.0, 0.0, -np.inf]]), np.array([1]))
    close(losses, np.log(np.array([2.0])), 1e-15)
    close(p, np.array([[0.5, 0.5, 0]]), 1e-15)


@given(draw=drawn(st.tuples(maps()), axis=st.integers(-4, 3)))
def test_concat_along_any_axis_and_back(draw, reference):
    (x,) = draw.arrays()
    axis = draw.options["axis"]
    pieces = (x, 2 * x, -x)
    joined = reference.concat(*pieces, axis=axis)
    parts = reference.concat_grad(joined, (x.shape[axis],) * 3, axis=axis)
    assert isinstance(parts, tuple)
    assert all(np.array_equal(part, piece) for part, piece in zip(parts, pieces, strict=True))


def test_results_are_no_views_of_what_went_in(reference):
    x = spread(np.random.default_rng(0), (2, 4, 4, 3))
    ones, key = np.ones(3), (0, 0, 0)
    for result in (reference.relu(x), reference.subsample(x, 1), reference.dropout(x, 0.0, key), reference.concat(x)):
        assert not np.shares_memory(result, x)
    gx, _, _, gresidual = reference.bn_relu_grad(x, ones[0] + x * 0, x, ones, ones, ones)
    assert not np.shares_memory(gresidual, x) and not np.shares_memory(gresidual, gx)


# ---- Optimiser updates that PyTorch does not have ------------------------------------------------------------------


def test_rmsprop_with_eps_inside_the_root(reference):
    w, square, velocity = np.array([1.0]), np.array([4.0]), np.array([0.5])
    reference.rmsprop_update(
        w, np.array([2.0]), square, velocity, lr=0.1, decay=0.5, eps=5.0, momentum=0.5, eps_inside=True
    )
    assert square.tolist() == [4.0]
    close(velocity, np.array([0.25 + 2 / 3]), 1e-15)
    close(w, 1 - 0.1 * velocity, 1e-15)


def test_ema_follows_the_weights(reference):
    average, w = np.array([1.0, 2.0]), np.array([3.0, 6.0])
    reference.ema_update(average, w, decay=0.75)
    assert average.tolist() == [1.5, 3.0] and w.tolist() == [3.0, 6.0]


@pytest.mark.parametrize("factor", [0.0, 0.25])
def test_updates_multiply_the_gradient_by_the_factor_and_leave_a_step_of_0_out(factor, reference):
    rng = np.random.default_rng(0)
    updates = {
        "sgd_update": (1, {"momentum": 0.9, "weight_decay": 0.1}),
        "rmsprop_update": (2, {"momentum": 0.9}),
        "adam_update": (2, {"step": 2, "weight_decay": 0.1, "decoupled": True}),
    }
    for name, (further, options) in updates.items():
        w, g, *state = (abs(rng.normal(size=7)) for _ in range(2 + further))
        before = [a.copy() for a in (w, *state)]
        expected = [a.copy() for a in before]
        getattr(reference, name)(w, g, *state, lr=0.1, factor=np.asarray(factor), **options)
        if factor:
            getattr(reference, name)(expected[0], factor * g, *expected[1:], lr=0.1, **options)
        assert all(np.array_equal(a, b) for a, b in zip((w, *state), expected, strict=True))
        assert np.array_equal(w, before[0]) == (factor == 0)


def test_copies_in_another_dtype_and_sums_of_squares(reference):
    w, copy = np.asarray([1.0, 2.0, 1e-9]), np.zeros(3, np.float16)
    reference.cast_update(copy, w)
    assert copy.tolist() == [1, 2, 0] and copy.dtype == np.float16
    total = reference.square_sum(np.full(4, 60000, np.float16), np.asarray([3.0], np.float32))
    assert total.shape == () and total.dtype == np.float64 and float(total) == 4 * 60000.0**2 + 9


# ---- Pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@given(seed=seeds, size=st.integers(1, 6), channels=st.integers(1, 3))
def test_crop_flip_normalise_is_its_loop_over_pixels(dtype, seed, size, channels, reference):
    n, h, w = 3, 4, 5
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 256, (n, h, w, channels), dtype=np.uint8)
    corners, mirrored = generator.integers(-3, 5, (n, 2), dtype=np.int32), generator.random(n) < 0.5
    mean, std = generator.random(channels, dtype=np.float32), 0.1 + generator.random(channels, dtype=np.float32)
    expected = np.zeros((n, size, size, channels))
    for i, row, column, c in itertools.product(range(n), range(size), range(size), range(channels)):
        at = int(corners[i, 0]) + row, int(corners[i, 1]) + (size - 1 - column if mirrored[i] else column)
        pixel = int(x[i, *at, c]) if 0 <= at[0] < h and 0 <= at[1] < w else 0
        expected[i, row, column, c] = (pixel / 255 - float(mean[c])) / float(std[c])
    y = reference.crop_flip_normalise(x, corners, mirrored, mean, std, size=size, dtype=np.dtype(dtype))
    assert y.dtype == dtype
    close(y, expected, {"float16": 1e-3, "float32": 1e-6, "float64": 1e-12}[dtype])
