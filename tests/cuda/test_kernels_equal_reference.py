"""Level 2: the text of every .cu file, compiled for the host, computes what the reference does.

In three orders of threads, with undefined behaviour an error, shared memory full of NaN before each block, and arrays
that end at memory which nobody may touch. Sizes that share work among blocks are set so low that small examples have
several of them.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels import cuda
from kernels import reference as reference_backend
from kernels.cuda import arrays, batch_normalisation, columns, convolution, launcher, optimisers
from kernels.cuda.launcher import signatures
from minicnn import layers, optim
from tests.cuda import nvrtc
from tests.cuda.host.module import ORDERS
from tests.cuda.numpy_launcher import NumpyLauncher, Recorder
from tests.kernels.cases import CASES
from tests.strategies import Drawn, convolutions, drawn, pools, spread

few = settings(max_examples=8)
FLOAT32, FLOAT16 = 2e-5, 4e-3  # of the largest value; ten times that for gradients, differences of large terms


@pytest.fixture(scope="module", autouse=True)
def small_shares() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "SMALLEST_CACHE", 4000)
        patch.setattr(convolution, "SLICE", 7)
        patch.setattr(batch_normalisation, "ROWS", 1)
        patch.setattr(batch_normalisation, "SLICES", 6)
        patch.setattr(batch_normalisation, "PASS", 1)
        yield


@pytest.fixture(scope="module", params=ORDERS)
def on_host(request: pytest.FixtureRequest) -> Iterator[None]:
    """Kernels run on the host in one order of threads; what they leave to the reference is the reference's own."""
    with launcher.using(NumpyLauncher(request.param)), kernels.use("reference"):
        yield


def same(value: Any, expected: Any, tolerance: float) -> None:
    """Equal shapes and dtypes, and elements within `tolerance` of the largest; one array or several."""
    if isinstance(expected, tuple):
        assert isinstance(value, tuple) and len(value) == len(expected)
        for v, e in zip(value, expected, strict=True):
            same(v, e, tolerance)
        return
    assert value.shape == expected.shape and value.dtype == expected.dtype
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1e-3)
    np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * scale)


def random(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


# ---- Every op of the table, and more channels, windows and values than it draws ------------------------------------


def call(k: Any, name: str, draw: Drawn, inputs: tuple[np.ndarray, ...], spacing: int = 1) -> tuple[Any, tuple]:
    """(y, gradients) of a case; the upstream gradient is a view of every `spacing`-th element."""
    _, forward, backward = CASES[name]
    y = forward(k, *inputs, **draw.options)
    gy = np.random.default_rng(draw.seed).uniform(-1, 1, y.shape).astype(y.dtype)
    gy = np.repeat(gy, spacing, axis=-1)[..., ::spacing]
    return y, tuple(backward(k, gy, y, *inputs, **draw.options))


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_value_and_gradients(name, data, on_host):
    draw = data.draw(CASES[name].inputs)
    inputs = draw.arrays(np.float32)
    before = [a.copy() for a in inputs]
    y, grads = call(cuda, name, draw, inputs, data.draw(st.integers(1, 2)))
    expected_y, expected = call(reference_backend, name, draw, inputs)
    same(y, expected_y, FLOAT32)
    same(grads, expected, 10 * FLOAT32)
    assert all(np.array_equal(a, b) for a, b in zip(inputs, before, strict=True))


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("concat")])
@few
@given(data=st.data())
def test_float16_maps_with_float32_arithmetic(name, data, on_host):
    draw = data.draw(CASES[name].inputs)
    halves = draw.arrays(np.float16)
    y, grads = call(cuda, name, draw, halves)
    expected_y, expected = call(reference_backend, name, draw, tuple(a.astype(np.float32) for a in halves))
    assert {a.dtype for a in (y, *grads)} == {np.dtype(np.float16)}
    same(y.astype(np.float32), expected_y, FLOAT16)
    kinked = "relu" in name or "max" in name  # where the two round to different sides of a kink, gradients differ
    if not kinked:
        same(tuple(g.astype(np.float32) for g in grads), expected, 10 * FLOAT16)


@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        (((3, 14, 13, 32), (3, 3, 32, 48), (48,)), {"pad": 1}),
        (((2, 5, 7, 70), (1, 1, 70, 67), (67,)), {}),
        (((2, 9, 8, 33), (3, 3, 33, 40), (40,)), {"pad": 1, "stride": 2}),
        (((2, 17, 19, 3), (7, 7, 3, 18), (18,)), {"pad": 3, "stride": 2}),
        (((2, 6, 6, 36), (3, 3, 12, 51), (51,)), {"pad": 1, "groups": 3}),
        (((1, 9, 9, 140), (3, 3, 70, 130), (130,)), {"pad": (0, 1), "groups": 2, "dilation": 2}),
    ],
)
@pytest.mark.parametrize("name", ["conv2d", "conv2d_relu"])
def test_convolutions_of_several_tiles(name, shapes, options, on_host):
    draw = Drawn(shapes, options)
    inputs = draw.arrays(np.float32)
    y, grads = call(cuda, name, draw, inputs)
    expected_y, expected = call(reference_backend, name, draw, inputs)
    same(y, expected_y, FLOAT32)
    same(grads, expected, 10 * FLOAT32)


@given(draw=convolutions())
def test_columns_and_their_way_back(draw, on_host):
    x, w, _ = draw.arrays(np.float32)
    options = {name: draw.options[name] for name in ("stride", "pad", "dilation")}
    col = reference_backend.im2col(x, w.shape[:2], **options)
    same(cuda.im2col(x, w.shape[:2], **options), col, 0)
    col += random(col.shape)
    same(cuda.col2im(col, x.shape, **options), reference_backend.col2im(col, x.shape, **options), FLOAT32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("offset", [0, 1, 4])
def test_columns_of_maps_at_any_address(dtype, offset, on_host):
    buffer = random((1 + 2 * 5 * 4 * 8 + offset,)).astype(dtype)
    x = buffer[offset : offset + 2 * 5 * 4 * 8].reshape(2, 5, 4, 8)
    same(cuda.im2col(x, 3, pad=1), reference_backend.im2col(x, 3, pad=1), 0)


wide = st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(2, 5), st.integers(1, 140))


@few
@given(draw=drawn(st.tuples(wide)))
def test_any_number_of_channels(draw, on_host):
    (x,) = draw.arrays(np.float32)
    c = x.shape[-1]
    gamma, beta = np.linspace(0.5, 2, c, dtype=np.float32), np.linspace(-1, 1, c, dtype=np.float32)
    mean, var = reference_backend.batch_norm_stats(x)
    y, gy = reference_backend.bn_relu(x, gamma, beta, mean, var, x), random(x.shape)
    calls: dict[str, tuple[Any, ...]] = {
        "batch_norm_stats": (x,),
        "bias_grad": (x,),
        "bn_relu": (x, gamma, beta, mean, var, x),
        "bn_relu_grad": (gy, y, x, gamma, mean, var + 1),
        "bn_relu_eval_grad": (gy, y, x, gamma, mean, var + 1),
        "lrn": (x,),
        "lrn_grad": (gy, x),
        "lcn": (x,),
        "lcn_grad": (gy, x),
        "global_avg_pool": (x,),
        "softmax": (x,),
        "softmax_grad": (gy, reference_backend.softmax(x)),
    }
    for name, arguments in calls.items():
        same(getattr(cuda, name)(*arguments), getattr(reference_backend, name)(*arguments), 10 * FLOAT32)


@given(draw=pools(symmetric=False), special=st.sampled_from([np.nan, -np.inf, 0.0]))
def test_max_pool_with_ties_nan_and_infinity(draw, special, on_host):
    (x,) = draw.arrays(np.float32)
    x[np.random.default_rng(draw.seed).random(x.shape) < 0.4] = special
    y, winners = reference_backend.max_pool(x, **draw.options)
    same(cuda.max_pool(x, **draw.options), (y, winners), 0)
    gy = random(y.shape)
    expected = reference_backend.max_pool_grad(gy, winners, x.shape, **draw.options)
    same(cuda.max_pool_grad(gy, winners, x.shape, **draw.options), expected, 1e-6)


def test_max_pool_of_windows_with_more_taps_than_a_byte_counts(on_host):
    x = spread(np.random.default_rng(0), (2, 20, 20, 3)).astype(np.float32)
    y, winners = reference_backend.max_pool(x, 17, stride=2)
    same(cuda.max_pool(x, 17, stride=2), (y, winners), 0)
    expected = reference_backend.max_pool_grad(y, winners, x.shape, 17, stride=2)
    same(cuda.max_pool_grad(y, winners, x.shape, 17, stride=2), expected, 1e-6)


def test_activations_let_a_nan_through(on_host):
    x = np.array([np.nan, -np.inf, np.inf, -0.0, 1.0], np.float32)
    for name in ("relu", "sigmoid", "tanh"):
        same(getattr(cuda, name)(x), getattr(reference_backend, name)(x), 1e-6)


def test_statistics_of_values_far_from_zero(on_host):
    x = np.random.default_rng(0).normal(1000, 0.1, (3, 9, 9, 5)).astype(np.float32)
    mean, var = cuda.batch_norm_stats(x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-2)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8])
def test_the_loss_of_a_label_that_is_no_class_is_nan(dtype, on_host):
    labels = np.array([0, 3, 2, -1 if np.dtype(dtype).kind == "i" else 255]).astype(dtype)
    losses, p = cuda.cross_entropy(random((4, 3)), labels)
    assert np.isnan(losses).tolist() == [False, True, False, True] and np.isfinite(p).all()


@pytest.mark.parametrize("seed", [0, 2**32 + 5, 2**64 - 1])
@pytest.mark.parametrize("size", [1, 3, 4, 1030])
def test_dropout_is_the_reference_s_bit_for_bit(seed, size, on_host):
    x = random((size,))
    for p in (0.1, 0.5, 0.999):
        key = (seed, 7, 2**32 - 1)
        assert cuda.dropout(x, p, key).tobytes() == reference_backend.dropout(x, p, key).tobytes()


FACTOR = np.full((), 0.3, np.float32)

UPDATES: dict[str, tuple[int, Callable[..., None]]] = {  # arrays besides the parameter and its gradient, and the call
    "sgd": (0, lambda k, w, g: k.sgd_update(w, g, None, lr=0.1, weight_decay=0.01)),
    "sgd, momentum": (1, lambda k, w, g, v: k.sgd_update(w, g, v, lr=0.1, momentum=0.9, weight_decay=0.01)),
    "sgd, Nesterov": (1, lambda k, w, g, v: k.sgd_update(w, g, v, lr=0.1, momentum=0.9, nesterov=True)),
    "rmsprop": (1, lambda k, w, g, s: k.rmsprop_update(w, g, s, None, lr=0.1, weight_decay=0.1)),
    "rmsprop, inside": (2, lambda k, w, g, s, v: k.rmsprop_update(w, g, s, v, lr=0.1, momentum=0.9, eps_inside=True)),
    "adam": (2, lambda k, w, g, m, v: k.adam_update(w, g, m, v, lr=0.1, weight_decay=0.1, step=3)),
    "adamw": (2, lambda k, w, g, m, v: k.adam_update(w, g, m, v, lr=0.1, weight_decay=0.1, decoupled=True, step=1)),
    "sgd, by a factor": (1, lambda k, w, g, v: k.sgd_update(w, g, v, lr=0.1, momentum=0.9, factor=FACTOR)),
    "rmsprop, by a factor": (1, lambda k, w, g, s: k.rmsprop_update(w, g, s, None, lr=0.1, factor=FACTOR)),
    "adam, by a factor": (2, lambda k, w, g, m, v: k.adam_update(w, g, m, v, lr=0.1, step=2, factor=FACTOR)),
    "ema": (0, lambda k, w, g: k.ema_update(w, g, decay=0.9)),
    "cast": (0, lambda k, w, g: k.cast_update(g, w)),
    "sum": (0, lambda k, w, g: k.sum_update(w, g)),
    "batch norm": (2, lambda k, w, g, m, v: k.batch_norm_update(m, v, w, g, count=5, momentum=0.3)),
}


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("layout", ["contiguous", "gradient is a view", "parameter is a view"])
def test_updates_in_place(name, layout, on_host):
    further, update = UPDATES[name]

    def state() -> list[np.ndarray]:
        arrays = [random((5, 67), i) for i in range(2)] + [np.abs(random((5, 67), i)) for i in range(2, 2 + further)]
        view = {"gradient is a view": 1, "parameter is a view": 0}.get(layout)
        return [np.repeat(a, 2, axis=1)[:, ::2] if i == view else a for i, a in enumerate(arrays)]

    changed, expected = state(), state()
    update(cuda, *changed)
    update(reference_backend, *expected)
    for value, e in zip(changed, expected, strict=True):
        same(value, e, 1e-6)


TOGETHER = [name for name in UPDATES if name not in ("sum", "batch norm")]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", TOGETHER)
def test_updates_of_all_parameters_together(name, dtype, on_host, monkeypatch):
    monkeypatch.setattr(optimisers, "PIECE", 50)
    further, update = UPDATES[name]
    shapes = [(3,), (7, 43), (1,), (50,), (101,)]

    def state(rounded: type) -> list[list[np.ndarray]]:
        state = [[np.abs(random(shape, i)) for i in range(2 + further)] for shape in shapes]
        return [[w, g.astype(dtype).astype(rounded), *rest] for w, g, *rest in state]

    changed, expected = state(dtype), state(np.float32)
    with cuda.together():
        for arrays in changed:
            update(cuda, *arrays)
        assert all((a[0] == b[0]).all() for a, b in zip(changed, expected, strict=True))  # they wait
    for arrays in expected:
        update(reference_backend, *arrays)
    for value, e in zip(changed, expected, strict=True):
        for i in range(2 + further):
            same(value[i], e[i].astype(value[i].dtype), 1e-6)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1.0])
@pytest.mark.parametrize("name", [name for name in UPDATES if "factor" in name])
def test_a_factor_of_0_leaves_the_step_out(name, bad, together, on_host, monkeypatch):
    further, update = UPDATES[name]
    monkeypatch.setitem(globals(), "FACTOR", np.zeros((), np.float32))
    before = [np.abs(random((70,), i)) for i in range(2 + further)]
    before[1][3] = bad
    for backend in (cuda, reference_backend):
        changed = [a.copy() for a in before]
        with cuda.together() if together else contextlib.nullcontext():
            update(backend, *changed)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(changed, before, strict=True))


@pytest.mark.parametrize("dtypes", [[np.float32], [np.float16], [np.float32, np.float16], [np.float64, np.float32]])
def test_the_sum_of_squares_of_several_arrays(dtypes, on_host, monkeypatch):
    monkeypatch.setattr(optimisers, "PIECE", 50)
    shapes = [(3,), (7, 43), (1,), (50,), (101,)]
    several = [random(shape, i).astype(dtypes[i % len(dtypes)]) for i, shape in enumerate(shapes)]
    several[1] = several[1][:, ::2]
    same(cuda.square_sum(*several), reference_backend.square_sum(*several), 1e-12)
    several[3][7] = 60000  # its square is no float16, and that of 1e30 no float32
    several[4][0] = 1e30 if several[4].dtype != np.float16 else 1
    same(cuda.square_sum(*several), reference_backend.square_sum(*several), 1e-12)
    for bad in (np.nan, np.inf):
        several[4][100] = bad
        assert not np.isfinite(cuda.square_sum(*several))


def test_a_step_of_an_optimiser_and_of_an_average_are_one_launch_each(recorder, monkeypatch):
    monkeypatch.setattr(kernels, "of", lambda array: cuda)
    model = layers.Sequential(layers.Linear(3, 4), layers.BatchNorm(4), layers.Linear(4, 2))
    optimiser, average = optim.SGD(model.parameters(), lr=0.1, momentum=0.9), optim.EMA(model)
    for p in model.parameters():
        p.grad = np.ones_like(p.data)
    optimiser.step()
    average.update()
    assert [kernel for _, kernel in recorder.launched] == ["sgd_all", "ema_all"]


def test_updates_together_are_one_launch_and_none_after_an_error(recorder):
    def step() -> None:
        for i in range(5):
            cuda.sgd_update(random((9,)), random((9,)), None, lr=0.1 * i)

    with cuda.together():
        step()
    assert recorder.launched == [("optimisers.cu", "sgd_all")]
    with pytest.raises(ZeroDivisionError), cuda.together():
        step()
        raise ZeroDivisionError
    step()
    assert [kernel for _, kernel in recorder.launched[1:]] == ["sgd"] * 5


@pytest.mark.parametrize("name", ["sgd, momentum", "rmsprop, inside", "adam", "ema"])
def test_updates_of_float32_parameters_by_float16_gradients(name, on_host):
    further, update = UPDATES[name]
    changed = [np.abs(random((70,), i)) for i in range(2 + further)]
    half = changed[1].astype(np.float16)
    expected = [a.copy() for a in changed]
    update(cuda, changed[0], half, *changed[2:])
    update(reference_backend, expected[0], half.astype(np.float32), *expected[2:])
    for i in (0, *range(2, 2 + further)):
        same(changed[i], expected[i], 1e-6)


# ---- What runs at all ----------------------------------------------------------------------------------------------


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    with launcher.using(recorder), kernels.use("reference"):
        yield recorder


@pytest.mark.parametrize("name", CASES)
@few
@given(data=st.data())
def test_float64_is_the_reference_s(name, data):
    draw, recorder = data.draw(CASES[name].inputs), Recorder()
    inputs = draw.arrays(np.float64)
    with launcher.using(recorder), kernels.use("reference"):
        result = call(cuda, name, draw, inputs)
        same(result, call(reference_backend, name, draw, inputs), 0)
    assert not recorder.launched


def test_these_tests_launch_every_kernel_of_every_file():
    recorder = Recorder()

    @settings(max_examples=20, database=None)
    @given(data=st.data())
    def record(data):
        for name in CASES:
            draw = data.draw(CASES[name].inputs)
            call(cuda, name, draw, draw.arrays(np.float32))

    with launcher.using(recorder), kernels.use("reference"), np.errstate(all="ignore"):  # results stay as allocated
        record()
        for further, update in UPDATES.values():
            update(cuda, *(random((5,), i) for i in range(2 + further)))
        with cuda.together():
            for further, update in (UPDATES[name] for name in TOGETHER):
                update(cuda, *(random((5,), i) for i in range(2 + further)))
        cuda.square_sum(random((5,)))
        moves, pictures = np.zeros((2, 2), np.int32), np.zeros((2, 3, 3, 4), np.uint8)
        cuda.crop_flip_normalise(pictures, moves, np.zeros(2, bool), C, C, size=3, dtype=np.float32)
    declared = {(source.path.name, kernel) for _, source in nvrtc.sources() for kernel in signatures(source.code)}
    assert set(recorder.launched) == declared


def test_empty_batches_launch_nothing(recorder):
    x, w, c = np.empty((0, 6, 6, 4), np.float32), random((3, 3, 4, 5)), random((4,))
    assert cuda.relu(x).shape == x.shape
    assert cuda.batch_norm(x, c, c, c, c).shape == x.shape
    assert cuda.max_pool(x, 2)[0].shape == (0, 3, 3, 4)
    assert cuda.conv2d(x, w).shape == (0, 4, 4, 5)
    assert not recorder.launched


def test_an_array_on_the_wrong_device_is_an_error_of_the_kernel():
    class OfAnotherDevice(Recorder):
        array = type("ndarray", (), {"__module__": "cupy"})

    with launcher.using(OfAnotherDevice()), pytest.raises(TypeError, match="relu: x must be a cupy float32 array, got"):
        cuda.relu(np.zeros((2, 2), np.float32))


X, Y, W, C = random((2, 6, 6, 4)), random((2, 6, 6, 3)), random((3, 3, 4, 5)), random((4,))
SHORT = random((3,))
MOVES = np.zeros((2, 2), np.int32), np.zeros(3, bool)  # for two images; one mirrored too many


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("relu_grad", (X, Y), r"relu_grad: y must have the shape \(2, 6, 6, 4\), got \(2, 6, 6, 3\)"),
        ("conv2d", (Y, W), r"conv2d: w must have the shape \(3, 3, 3, 5\), got \(3, 3, 4, 5\)"),
        ("conv2d", (X, W, SHORT), "conv2d: b "),
        ("conv2d_relu", (X, W, None, X), "conv2d: residual "),
        ("conv2d_input_grad", (X, W, X.shape), "conv2d_input_grad: gy "),
        ("conv2d_input_grad", (random((2, 4, 4, 5)), W, Y.shape), "conv2d_input_grad: w "),
        ("conv2d_weight_grad", (X, X, W.shape), "conv2d_weight_grad: gy "),
        ("conv2d_weight_grad", (random((2, 4, 4, 5)), Y, W.shape), "conv2d_weight_grad: x "),
        ("col2im", (random((2, 4, 4, 3, 3, 3)), X.shape), "col2im: col "),
        ("linear", (random((2, 4)), random((3, 5))), "matmul: b "),
        ("linear", (random((2, 3)), random((3, 5)), SHORT), "linear: b "),
        ("max_pool_grad", (X, X, X.shape, 2), "max_pool_grad: gy "),
        ("max_pool_grad", (random((2, 3, 3, 4)), X, X.shape, 2), "max_pool_grad: winners "),
        ("avg_pool_grad", (X, X.shape, 2), "avg_pool_grad: gy "),
        ("global_avg_pool_grad", (random((2, 3)), X.shape), "global_avg_pool_grad: gy "),
        ("batch_norm", (X, C, C, C, SHORT), "batch_norm: var "),
        ("bn_relu", (X, C, C, C, C, Y), "batch_norm: residual "),
        ("bn_relu_grad", (X, Y, X, C, C, C), "batch_norm_grad: y "),
        ("batch_norm_grad", (X, X, SHORT, C, C), "batch_norm_grad: gamma "),
        ("lrn_grad", (Y, X), "lrn_grad: gy "),
        ("lcn_grad", (Y, X), "lcn_grad: gy "),
        ("subsample_grad", (X, X.shape, 2), "subsample_grad: gy "),
        ("softmax_grad", (X, Y), "softmax_grad: y "),
        ("cross_entropy", (random((2, 4)), np.zeros(3, np.int32)), "cross_entropy: labels "),
        ("cross_entropy_grad", (SHORT, random((2, 4)), np.zeros(2, np.int32)), "cross_entropy_grad: glosses "),
        ("sum_update", (X, Y), "sum_update: g "),
        ("crop_flip_normalise", (X.astype(np.uint8), *MOVES, C, C), "crop_flip_normalise: mirrored "),
    ],
)
def test_a_wrong_shape_is_an_error_before_any_launch(recorder, name, arguments, message):
    options = {"size": 2, "dtype": np.float32} if name == "crop_flip_normalise" else {}
    with pytest.raises(ValueError, match=f"^{message}"):
        getattr(cuda, name)(*arguments, **options)
    assert not recorder.launched


def test_updates_of_wrong_shapes_are_errors(recorder):
    for name, kernel in (("sgd, momentum", "sgd: velocity"), ("adam", "adam: v"), ("rmsprop", "rmsprop: square")):
        further, update = UPDATES[name]
        with pytest.raises(ValueError, match=f"^{kernel} must have the shape"):
            update(cuda, *[C] * (1 + further), SHORT)
    assert not recorder.launched


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 19), channels=st.integers(1, 4))
def test_crop_flip_normalise(seed, size, channels, on_host):
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 256, (5, 11, 12, channels), dtype=np.uint8)
    moves = generator.integers(-9, 9, (5, 2), dtype=np.int32), generator.random(5) < 0.5
    statistics = generator.random((2, channels), dtype=np.float32) + np.float32(0.1)
    for dtype in (np.float32, np.float16):
        y = cuda.crop_flip_normalise(x, *moves, *statistics, size=size, dtype=dtype)
        expected = reference_backend.crop_flip_normalise(x, *moves, *statistics, size=size, dtype=dtype)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, expected)


def test_python_and_cuda_agree_about_constants():
    agreed = set()
    files = {file.stem: file for file in (*nvrtc.FOLDER.glob("*.cu"), nvrtc.FOLDER / "common.cuh")}
    for name, file in files.items():
        module = importlib.import_module(f"kernels.cuda.{'arrays' if name == 'common' else name}")
        lines = re.findall(r"^constexpr int (.*?);", file.read_text(encoding="utf-8"), re.MULTILINE)
        for constant, value in re.findall(r"([A-Z]+) = (\d+)", " ".join(lines)):
            if hasattr(module, constant):
                assert getattr(module, constant) == int(value), f"{constant} in {file.name}"
                agreed.add((name, constant))
    assert agreed == {
        *(("common", "BLOCK"), ("convolution", "TILE"), ("convolution", "THREADS")),
        *(("loss", "WARPS"), ("contrast_normalisation", "WARPS")),
        *(("response_normalisation", "CHANNELS"), ("response_normalisation", "POSITIONS")),
    }


def test_lanes_make_whole_blocks():
    assert {c: arrays.lanes(c) for c in (1, 8, 9, 16, 17, 500)} == {
        1: (8, 32), 8: (8, 32), 9: (16, 16), 16: (16, 16), 17: (32, 8), 500: (32, 8)
    }  # fmt: skip
