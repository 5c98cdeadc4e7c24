"""Calls that cannot work, and how the message begins: the op, the argument, what was given, what is needed."""

from __future__ import annotations

import pytest

import kernels
from minicnn import Generator, Tensor, ops
from tests.device import np


def t(*shape):
    return Tensor(np.ones(shape), requires_grad=True)


X = (2, 5, 4, 3)  # N, H, W, C
SCORES = (4, 3)


def entropy(labels, **options):
    return ops.cross_entropy(t(*SCORES), np.array(labels), **options)


def whole_or_pair(name, given):
    return f"{name} must be a whole number from 1 on, or a pair of them, got {given}"


def conv_errors(op, name):
    x, w = t(*X), t(2, 2, 3, 4)
    wide = t(2, 5, 4, 4)
    pad = f"{name}: pad must be a whole number from 0 on, (h, w) or ((top, bottom), (left, right)), got "
    return [
        (lambda: op(t(5, 4, 3), w), f"{name}: x must be (N, H, W, C), got shape (5, 4, 3)"),
        (lambda: op(t(0, 5, 4, 3), w), f"{name}: x is empty, shape (0, 5, 4, 3)"),
        (lambda: op(x, t(2, 3, 4)), f"{name}: w must be (KH, KW, C/groups, O), got shape (2, 3, 4)"),
        (lambda: op(x, t(2, 2, 4, 6)), f"{name}: w has 4 input channels but x has 3 (x: {X}, w: (2, 2, 4, 6))"),
        (
            lambda: op(wide, t(2, 2, 4, 6), groups=2),
            f"{name}: w has 8 input channels but x has 4 (x: (2, 5, 4, 4), w: (2, 2, 4, 6), groups: 2)",
        ),
        (
            lambda: op(wide, t(2, 2, 2, 5), groups=2),
            f"{name}: 2 groups do not divide the 5 output channels of w (x: (2, 5, 4, 4), w: (2, 2, 2, 5), groups: 2)",
        ),
        (lambda: op(x, w, groups=0), f"{name}: groups must be a whole number from 1 on, got 0"),
        (lambda: op(x, w, groups=1.0), f"{name}: groups must be a whole number from 1 on, got 1.0"),
        (lambda: op(x, w, t(3)), f"{name}: b must be (4,), one for each output channel, got shape (3,)"),
        (lambda: op(x, w, t(1, 4)), f"{name}: b must be (4,), one for each output channel, got shape (1, 4)"),
        (lambda: op(x, w, stride=0), f"{name}: {whole_or_pair('stride', 0)}"),
        (lambda: op(x, w, stride=(1, -2)), f"{name}: {whole_or_pair('stride', (1, -2))}"),
        (lambda: op(x, w, stride=(1, 1, 1)), f"{name}: {whole_or_pair('stride', (1, 1, 1))}"),
        (lambda: op(x, w, stride=1.5), f"{name}: {whole_or_pair('stride', 1.5)}"),
        (lambda: op(x, w, stride=True), f"{name}: {whole_or_pair('stride', True)}"),
        (lambda: op(x, w, dilation=0), f"{name}: {whole_or_pair('dilation', 0)}"),
        (lambda: op(x, w, pad=-1), pad + "-1"),
        (lambda: op(x, w, pad=((0, 1), (-1, 2))), pad + "((0, 1), (-1, 2))"),
        (lambda: op(x, w, pad=(1, 2, 3)), pad + "(1, 2, 3)"),
        (lambda: op(x, w, pad="same"), pad + "'same'"),
        (
            lambda: op(x, t(3, 3, 3, 4), dilation=2),
            f"{name}: the window, 5x5, is larger than the padded map, 5x4 (x: {X}, pad: 0)",
        ),
        (
            lambda: op(x, t(8, 1, 3, 4), pad=1),
            f"{name}: the window, 8x1, is larger than the padded map, 7x6 (x: {X}, pad: 1)",
        ),
    ]


def pool_errors(op, name):
    x = t(*X)
    return [
        (lambda: op(t(4, 3), 2), f"{name}: x must be (N, H, W, C), got shape (4, 3)"),
        (lambda: op(x, 0), f"{name}: {whole_or_pair('size', 0)}"),
        (lambda: op(x, 2, stride=0), f"{name}: {whole_or_pair('stride', 0)}"),
        (lambda: op(x, 2, pad=-1), f"{name}: pad must be a whole number from 0 on, (h, w) or "),
        (lambda: op(x, 6), f"{name}: the window, 6x6, is larger than the padded map, 5x4"),
        (lambda: op(x, (2, 3), pad=2), f"{name}: pad must be smaller than the window, got pad 2 for size (2, 3)"),
        (
            lambda: op(x, (3, 2), pad=((0, 0), (0, 2))),
            f"{name}: pad must be smaller than the window, got pad ((0, 0), (0, 2)) for size (3, 2)",
        ),
    ]


def norm_errors(op, name):
    return [
        (lambda: op(t(3), t(3), t(3)), f"{name}: x must be (N, ..., C), got shape (3,)"),
        (lambda: op(t(*X), t(4), t(3)), f"{name}: gamma must be (3,), one for each channel, got shape (4,)"),
        (lambda: op(t(*X), t(3), t(1)), f"{name}: beta must be (3,), one for each channel, got shape (1,)"),
        (
            lambda: op(t(*X), t(3), t(3), running=(np.zeros(2), np.ones(3))),
            f"{name}: running mean must be (3,), one for each channel, got shape (2,)",
        ),
        (
            lambda: op(t(*X), t(3), t(3), running=(np.zeros(3), np.ones((1, 3)))),
            f"{name}: running var must be (3,), one for each channel, got shape (1, 3)",
        ),
        (
            lambda: op(t(*X), t(3), t(3), training=False),
            f"{name}: training=False needs running=(mean, var) to normalise with",
        ),
        (
            lambda: op(t(1, 1, 1, 3), t(3), t(3)),
            f"{name}: training needs more than one value per channel, x is (1, 1, 1, 3)",
        ),
        (lambda: op(t(1, 3), t(3), t(3)), f"{name}: training needs more than one value per channel, x is (1, 3)"),
        (lambda: op(t(0, 3), t(3), t(3)), f"{name}: x is empty, shape (0, 3)"),
    ]


ERRORS = [
    *conv_errors(ops.conv2d, "conv2d"),
    *conv_errors(ops.conv_relu, "conv_relu"),
    *pool_errors(ops.max_pool, "max_pool"),
    *pool_errors(ops.avg_pool, "avg_pool"),
    *norm_errors(ops.batch_norm, "batch_norm"),
    *norm_errors(ops.bn_relu, "bn_relu"),
    (
        lambda: ops.conv_relu(t(*X), t(3, 3, 3, 4), None, t(*X), stride=2, pad=1),
        "conv_relu: residual must be (2, 3, 2, 4) like y, got shape (2, 5, 4, 3)",
    ),
    (
        lambda: ops.bn_relu(t(*X), t(3), t(3), t(2, 5, 4, 1)),
        "bn_relu: residual must be (2, 5, 4, 3) like x, got shape (2, 5, 4, 1)",
    ),
    (lambda: ops.linear(t(*X), t(3, 4)), "linear: x must be (N, in), got shape (2, 5, 4, 3)"),
    (lambda: ops.linear(t(2, 5), t(4, 3)), "linear: w has 4 inputs but x has 5 (x: (2, 5), w: (4, 3))"),
    (lambda: ops.linear(t(2, 4), t(4, 3), t(4)), "linear: b must be (3,), one for each output, got shape (4,)"),
    (lambda: ops.global_avg_pool(t(2, 3)), "global_avg_pool: x must be (N, H, W, C), got shape (2, 3)"),
    (lambda: ops.lrn(t(*X), size=4), "lrn: size must be odd, so that the window has a centre, got 4"),
    (lambda: ops.lrn(t(*X), size=-1), "lrn: size must be a whole number from 1 on, got -1"),
    (lambda: ops.lcn(t(*X), size=2), "lcn: size must be odd, so that the window has a centre, got 2"),
    (lambda: ops.lcn(t(5, 4), size=3), "lcn: x must be (N, H, W, C), got shape (5, 4)"),
    (lambda: ops.dropout(t(2), 1.0, rng=Generator()), "dropout: p must be at least 0 and below 1, got 1.0"),
    (lambda: ops.dropout(t(2), -0.1, rng=Generator()), "dropout: p must be at least 0 and below 1, got -0.1"),
    (
        lambda: ops.dropout(t(2), float("nan"), rng=Generator(), training=False),
        "dropout: p must be at least 0 and below 1, got nan",
    ),
    (lambda: entropy([0, 1, 2]), "cross_entropy: labels must be (4,), one for each row of the logits, got shape (3,)"),
    (
        lambda: entropy([[0], [1], [2], [0]]),
        "cross_entropy: labels must be (4,), one for each row of the logits, got shape (4, 1)",
    ),
    (
        lambda: entropy([0.0, 1.0, 2.0, 0.0]),
        "cross_entropy: labels as probabilities must be (4, 3) like the logits, got (4,)",
    ),
    (lambda: entropy([0] * 4, label_smoothing=1.5), "cross_entropy: label_smoothing must be from 0 to 1, got 1.5"),
    (lambda: entropy([0] * 4, label_smoothing=-0.1), "cross_entropy: label_smoothing must be from 0 to 1, got -0.1"),
    (
        lambda: entropy([0] * 4, reduction="average"),
        "cross_entropy: reduction must be 'mean', 'sum' or 'none', got 'average'",
    ),
    (lambda: ops.cross_entropy(t(3), np.array([0])), "cross_entropy: logits must be (N, K), got shape (3,)"),
    (lambda: ops.concat(), "concat: needs one array or more, got none"),
    (lambda: ops.concat(t(2, 3), t(2, 3), axis=2), "concat: axis 2 does not exist in an array of shape (2, 3)"),
    (lambda: ops.concat(t(2, 3), axis=-3), "concat: axis -3 does not exist in an array of shape (2, 3)"),
    (lambda: ops.concat(t(2, 3), t(1, 3)), "concat: shapes must agree except along axis -1, got (2, 3), (1, 3)"),
    (
        lambda: ops.concat(t(2, 3), t(2, 3, 1), axis=0),
        "concat: shapes must agree except along axis 0, got (2, 3), (2, 3, 1)",
    ),
    (lambda: ops.pad_channels(t(*X), -1, 2), "pad_channels: before must be a whole number from 0 on, got -1"),
    (lambda: ops.subsample(t(*X), 0), f"subsample: {whole_or_pair('stride', 0)}"),
    (lambda: ops.subsample(t(*X), (2, 0)), f"subsample: {whole_or_pair('stride', (2, 0))}"),
    (lambda: ops.subsample(t(2, 3), 1), "subsample: x must be (N, H, W, C), got shape (2, 3)"),
    (lambda: ops.sum(t(2, 3), axis=2), "sum: axis 2 does not exist in an array of shape (2, 3)"),
    (lambda: ops.mean(t(2, 3), axis=(0, -3)), "mean: axis -3 does not exist in an array of shape (2, 3)"),
    (lambda: ops.reshape(t(2, 3), shape=(4, -1)), "reshape: the 6 elements of x (2, 3) do not fit the shape (4, -1)"),
    (lambda: ops.transpose(t(2, 3), axes=(0, 0)), "transpose: axes must name each axis of (2, 3) once, got (0, 0)"),
    (lambda: ops.matmul(t(3), t(3, 2)), "matmul: both arguments need two axes or more (a: (3,), b: (3, 2))"),
    (lambda: ops.matmul(t(2, 3), t(2, 3)), "matmul: a has 3 columns but b has 2 rows (a: (2, 3), b: (2, 3))"),
]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("call, message", ERRORS, ids=[message for _, message in ERRORS])
def test_the_message_names_what_is_wrong(call, message, backend):
    with kernels.use(backend), pytest.raises(ValueError) as error:
        call()
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


INTEGERS = Tensor(np.ones(X, np.int64))
KINDS = [
    (lambda: entropy([True] * 4), "cross_entropy: labels must be integers or probabilities, got bool"),
    (lambda: ops.cross_entropy(t(*SCORES), [0] * 4), "cross_entropy: labels must be an array, got list"),
    (lambda: ops.conv2d(INTEGERS, t(2, 2, 3, 4)), "conv2d: x must be floating point, got int64; convert it with .ast"),
    (lambda: ops.conv2d(t(*X), 3.0), "conv2d: w must be an array (KH, KW, C/groups, O), got float"),
    (lambda: ops.max_pool(INTEGERS, 2), "max_pool: x must be floating point, got int64"),
    (lambda: ops.dropout(t(2), 0.5, rng=7), "dropout: rng must be a minicnn.Generator, got int"),
    (lambda: ops.add(t(2), [1.0, 2.0]), "add: expected arrays and numbers, got list"),
    (
        lambda: ops.matmul(Tensor(np.ones((2, 2), np.float32)), np.ones((2, 2), np.int64)),
        "matmul: float32 and int64 would make float64; convert the integers with .astype",
    ),
    (lambda: ops.pow(t(2), exponent=t(2)), "pow: exponent must be a number, got Tensor"),
]


@pytest.mark.parametrize("call, message", KINDS, ids=[message for _, message in KINDS])
def test_a_wrong_kind_of_argument_is_a_type_error(call, message):
    with pytest.raises(TypeError) as error:
        call()
    assert str(error.value).startswith(message)


@pytest.mark.cpu_only("labels on a device are not looked at: the host would have to wait for them")
@pytest.mark.parametrize("labels, label, position", [([0, 3, 1, 7], 3, 1), ([0, 2, 1, -1], -1, 3)])
def test_labels_outside_the_classes(labels, label, position):
    message = f"cross_entropy: label {label} at position {position} is outside the classes 0 to 2"
    with pytest.raises(ValueError, match=message):
        entropy(labels)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum"])
def test_shapes_that_do_not_broadcast(name):
    with pytest.raises(ValueError, match=rf"^{name}: shapes \(2, 3\) and \(2,\) do not broadcast"):
        getattr(ops, name)(t(2, 3), t(2))


def test_a_refused_call_changes_no_running_statistics():
    mean, var = np.zeros(3), np.ones(3)
    with pytest.raises(ValueError):
        ops.bn_relu(t(*X), t(3), t(3), t(2, 5, 4, 1), running=(mean, var))
    assert mean.tolist() == [0, 0, 0]
    assert var.tolist() == [1, 1, 1]


def test_a_refused_dropout_draws_nothing():
    rng = Generator(3)
    with pytest.raises(ValueError):
        ops.dropout(t(2), 1.5, rng=rng)
    assert rng.step == 0
