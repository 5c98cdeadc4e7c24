"""The judge judged: classic wrong gradients must be found, and the argument named; right ones must pass."""

from __future__ import annotations

import re

import pytest

import kernels
from kernels import reference as k
from minicnn import GradientError, gradcheck, ops
from minicnn.autograd import differentiable
from tests.device import np
from tests.strategies import spread

RNG = np.random.default_rng(0)
X, W, B = (spread(RNG, shape) for shape in [(2, 4, 4, 3), (2, 2, 3, 3), (3,)])
M, V = spread(RNG, (4, 3)), spread(RNG, (3, 3))


def planted(f, backward):
    """An op that computes f with k's arrays and goes back through the wrong `backward(gy, *arrays)`."""

    @differentiable
    def op(*arrays):
        return f(*arrays), lambda gy, needs: backward(gy, *arrays)

    return op


def conv_grads(gy, x, w, b):
    return k.conv2d_input_grad(gy, w, x.shape), k.conv2d_weight_grad(gy, x, w.shape), k.bias_grad(gy)


def transposed_filters(gy, x, w, b):
    gx, gw, gb = conv_grads(gy, x, w, b)
    return gx, np.ascontiguousarray(gw.swapaxes(0, 1)), gb


def transposed_channels(gy, x, w, b):
    gx, gw, gb = conv_grads(gy, x, w, b)
    return gx, np.ascontiguousarray(gw.swapaxes(2, 3)), gb


def flipped_filters(gy, x, w, b):
    return k.conv2d_input_grad(gy, w[::-1, ::-1], x.shape), *conv_grads(gy, x, w, b)[1:]


def one_image_only(gy, x, w, b):
    gx, gw, gb = conv_grads(gy, x, w, b)
    return gx, gw, gb - k.bias_grad(gy[1:])


def without_variance_path(gy, x, gamma, beta):
    mean, var = k.batch_norm_stats(x)
    _, ggamma, gbeta = k.batch_norm_grad(gy, x, gamma, mean, var)
    direct = gy * gamma / np.sqrt(var + 1e-5)
    return direct - direct.mean(axis=(0, 1, 2)), ggamma, gbeta


def without_mean_path(gy, x, gamma, beta):
    mean, var = k.batch_norm_stats(x)
    gx, ggamma, gbeta = k.batch_norm_grad(gy, x, gamma, mean, var)
    return gx + (gy * gamma / np.sqrt(var + 1e-5)).mean(axis=(0, 1, 2)), ggamma, gbeta


def batch_norm(x, gamma, beta):
    return k.batch_norm(x, gamma, beta, *k.batch_norm_stats(x))


GAMMA = np.array([1.5, -0.7, 2.0])
CONV = (lambda x, w, b: k.conv2d(x, w, b), (X, W, B))
BN = (batch_norm, (X, GAMMA, B))
LINEAR = (lambda x, w: x @ w, (M, V))
SOFTMAX = (k.softmax, (M,))
MISTAKES = {  # what: (f and its arguments), wrong backward, the argument to be named
    "conv: filters transposed": (CONV, transposed_filters, 1),
    "conv: channels transposed": (CONV, transposed_channels, 1),
    "conv: filters flipped": (CONV, flipped_filters, 0),
    "conv: bias without the sum over the batch": (CONV, one_image_only, 2),
    "linear: weights transposed": (LINEAR, lambda gy, x, w: (gy @ w, x.T @ gy), 0),
    "linear: weight gradient transposed": (LINEAR, lambda gy, x, w: (gy @ w.T, gy.T @ x), 1),
    "linear: mean over the batch for the sum": (LINEAR, lambda gy, x, w: (gy @ w.T, x.T @ gy / len(x)), 1),
    "square: the factor 2 forgotten": ((np.square, (M,)), lambda gy, x: (gy * x,), 0),
    "square: wrong by 1e-4": ((np.square, (M,)), lambda gy, x: (gy * x * 2.0002,), 0),
    "softmax: right for an upstream of ones alone": (SOFTMAX, lambda gy, x: (0 * gy,), 0),
    "softmax: the diagonal alone": (SOFTMAX, lambda gy, x: (gy * k.softmax(x) * (1 - k.softmax(x)),), 0),
    "sum: upstream ignored": ((lambda x: 3 * x, (M,)), lambda gy, x: (np.full_like(x, 3),), 0),
    "batch norm: no variance path": (BN, without_variance_path, 0),
    "batch norm: no mean path": (BN, without_mean_path, 0),
    "batch norm: no gradient at all": (BN, lambda gy, x, g, b: (0 * x, *without_mean_path(gy, x, g, b)[1:]), 0),
    "sign": ((np.negative, (M,)), lambda gy, x: (gy,), 0),
    "one element": ((np.negative, (M,)), lambda gy, x: (np.where(x == x[2, 1], 0, -gy),), 0),
    "NaN": ((np.negative, (M,)), lambda gy, x: (gy * np.nan,), 0),
    "infinity": ((np.negative, (M,)), lambda gy, x: (gy * np.inf,), 0),
}


def named(error):
    """The numbers of the arguments that the message calls wrong."""
    return [int(i) for i in re.findall(r"argument (\d+)", str(error.value))]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("what", MISTAKES)
def test_a_wrong_gradient_is_found_and_its_argument_alone_is_named(what, seed):
    (f, arrays), backward, argument = MISTAKES[what]
    with pytest.raises(GradientError, match=r"wrong by \S+ of its size: analytic \S+, numerical \S+ along") as error:
        gradcheck(planted(f, backward), *arrays, seed=seed)
    assert named(error) == [argument]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("what", MISTAKES)
def test_locate_finds_the_same_mistakes_element_by_element(what):
    (f, arrays), backward, argument = MISTAKES[what]
    with pytest.raises(GradientError, match=r"is wrong at \(\d+,[\d, ]*\) by \S+ of its size: analytic") as error:
        gradcheck(planted(f, backward), *arrays, locate=True)
    assert named(error) == [argument]


def test_several_wrong_arguments_are_all_named():
    with pytest.raises(GradientError) as error:
        gradcheck(planted(lambda a, b, c: a + b - c, lambda gy, a, b, c: (2 * gy, gy, gy)), M, M, M)
    assert named(error) == [0, 2]


def test_the_functions_with_their_own_gradients_pass():
    """So it is the planted mistakes that are found above."""
    right = [
        (CONV, conv_grads),
        (BN, lambda gy, x, gamma, beta: k.batch_norm_grad(gy, x, gamma, *k.batch_norm_stats(x))),
        (LINEAR, lambda gy, x, w: (gy @ w.T, x.T @ gy)),
        (SOFTMAX, lambda gy, x: (k.softmax_grad(gy, k.softmax(x)),)),
        ((np.square, (M,)), lambda gy, x: (2 * gy * x,)),
    ]
    for (f, arrays), backward in right:
        for locate in (False, True):
            error = gradcheck(planted(f, backward), *arrays, locate=locate)
            assert isinstance(error, float)
            assert 0 <= error < 1e-6


def test_locate_names_the_index_and_both_values():
    def backward(gy, x):
        g = 2 * gy * x
        g[2, 1] += 10
        return (g,)

    with pytest.raises(
        GradientError, match=r"argument 0 is wrong at \(2, 1\) by \S+ of its size: analytic \S+, numerical \S+$"
    ):
        gradcheck(planted(np.square, backward), M, locate=True)


@pytest.mark.parametrize("locate", [False, True])
def test_none_is_an_error_that_names_the_argument(locate):
    with pytest.raises(GradientError, match=r"gets no gradient: backward returned None for it") as error:
        gradcheck(planted(np.multiply, lambda gy, a, b: (gy * b, None)), M, M + 1, locate=locate)
    assert named(error) == [1]


def test_none_is_right_for_what_the_result_does_not_depend_on():
    assert gradcheck(planted(lambda a, b: 2 * a, lambda gy, a, b: (2 * gy, None)), M, V) < 1e-6


@pytest.mark.parametrize(
    "gradient, said",
    [
        (lambda gy: gy.sum(axis=0), "the gradient of argument 0 is (3,) float64, the argument (4, 3) float64"),
        (
            lambda gy: -gy.astype(np.float32),
            "the gradient of argument 0 is (4, 3) float32, the argument (4, 3) float64",
        ),
    ],
    ids=["shape", "dtype"],
)
def test_a_gradient_of_another_shape_or_dtype_is_an_error(gradient, said):
    with pytest.raises(GradientError, match=re.escape(said)):
        gradcheck(planted(np.negative, lambda gy, x: (gradient(gy),)), M)


def test_what_draws_anew_at_each_call_is_not_a_function():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="gradcheck: f gave two results for the same arguments"):
        gradcheck(lambda x: x * rng.standard_normal(x.shape), M)


@pytest.mark.parametrize("locate", [False, True])
def test_a_gradient_of_zero_is_no_false_alarm(locate):
    """What is left of it numerically is rounding, which no relative error can judge."""
    assert gradcheck(lambda x: ops.softmax(x).sum(axis=1), M, locate=locate) < 1e-6
    assert gradcheck(lambda x: ops.batch_norm(x, GAMMA, B).sum(), X, locate=locate) < 1e-6
    assert gradcheck(lambda x: 0 * x + 1e3, M, locate=locate) == 0


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_units_do_not_matter(scale):
    assert gradcheck(lambda x: scale * x * x, M) < 1e-6
    with pytest.raises(GradientError):
        gradcheck(planted(lambda x: scale * x * x, lambda gy, x: (scale * gy * x,)), M)


def test_a_small_gradient_beside_a_large_one_is_judged_by_itself():
    f = planted(lambda a, b: 1e6 * a + 1e-2 * b, lambda gy, a, b: (1e6 * gy, 2e-2 * gy))
    with pytest.raises(GradientError) as error:
        gradcheck(f, M * 1e-6, M)
    assert named(error) == [1]


def test_locate_looks_at_small_arrays_only():
    large = np.linspace(1, 2, 10_001)
    assert gradcheck(ops.exp, large, locate=True) < 1e-6
    with pytest.raises(GradientError, match="along a random direction; 10001 elements are too many to locate one"):
        gradcheck(planted(np.exp, lambda gy, x: (gy,)), large, locate=True)


def test_float32_is_refused():
    with pytest.raises(TypeError, match=r"^gradcheck: argument 1 is float32; convert it with .astype\(numpy.float64\)"):
        gradcheck(ops.add, M, M.astype(np.float32))


def test_arguments_are_left_alone():
    x, w = M.copy(), V.copy()
    gradcheck(ops.matmul, x, w)
    gradcheck(ops.matmul, x, w, locate=True)
    assert np.array_equal(x, M)
    assert np.array_equal(w, V)


@pytest.mark.parametrize("locate", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (1, 3)])
def test_arrays_of_any_number_of_axes_can_be_checked(shape, locate):
    assert gradcheck(ops.exp, np.full(shape, 0.3), locate=locate) < 1e-7
    with pytest.raises(GradientError, match="argument 0"):
        gradcheck(planted(np.exp, lambda gy, x: (gy * 1.01 * np.exp(x),)), np.full(shape, 0.3), locate=locate)


def test_the_tolerance_decides():
    slightly = planted(np.exp, lambda gy, x: (gy * np.exp(x) * 1.001,))
    with pytest.raises(GradientError):
        gradcheck(slightly, M)
    assert 1e-5 < gradcheck(slightly, M, tolerance=0.1) < 0.01


def test_a_whole_block_passes():
    def block(x, w, gamma, beta):
        h = ops.batch_norm(ops.conv2d(x, w, pad=((0, 1), (1, 0))), gamma, beta)
        return ops.softmax(ops.global_avg_pool(ops.tanh(h) + x))

    for backend in ("reference", "cpu"):
        with kernels.use(backend):
            assert gradcheck(block, X, W, GAMMA, B) < 1e-6
