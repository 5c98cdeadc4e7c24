"""What gradients alone do not tell: state, randomness, ties, reductions, options that mean nothing to a derivative."""

from __future__ import annotations

import pytest

import kernels
from minicnn import Generator, Tensor, ops
from tests.device import np
from tests.strategies import spread

RNG = np.random.default_rng(0)
X = spread(RNG, (4, 3, 5, 3)) * 2 + 1
ONE, ZERO = np.ones(3), np.zeros(3)


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def backend(request):
    with kernels.use(request.param):
        yield request.param


def leaf(a):
    return Tensor(np.asarray(a, np.float64), requires_grad=True)


@pytest.mark.parametrize("op", [ops.batch_norm, ops.bn_relu])
def test_running_statistics_move_in_place_with_the_unbiased_variance(op):
    mean, var = np.array([1.0, 2, 3]), np.array([4.0, 5, 6])
    op(Tensor(X), ONE, ZERO, running=(mean, var), momentum=0.3)
    batch_mean, batch_var = X.mean(axis=(0, 1, 2)), X.var(axis=(0, 1, 2), ddof=1)
    np.testing.assert_allclose(mean, 0.7 * np.array([1, 2, 3]) + 0.3 * batch_mean, rtol=1e-12)
    np.testing.assert_allclose(var, 0.7 * np.array([4, 5, 6]) + 0.3 * batch_var, rtol=1e-12)


def test_the_default_momentum_is_a_tenth():
    mean, var = np.zeros(3), np.zeros(3)
    ops.batch_norm(Tensor(X), ONE, ZERO, running=(mean, var))
    np.testing.assert_allclose(mean, 0.1 * X.mean(axis=(0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("op", [ops.batch_norm, ops.bn_relu])
def test_training_normalises_with_the_batch_whatever_the_running_statistics(op):
    with_running = op(Tensor(X), ONE, ZERO, running=(np.full(3, 9.0), np.full(3, 9.0)))
    np.testing.assert_array_equal(with_running.data, op(Tensor(X), ONE, ZERO).data)


def test_a_normalised_channel_has_mean_0_and_deviation_1():
    y = ops.batch_norm(Tensor(X), ONE, ZERO, eps=0.0).data
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(axis=(0, 1, 2)), 1, rtol=1e-12)


@pytest.mark.parametrize("op", [ops.batch_norm, ops.bn_relu])
def test_evaluation_uses_the_running_statistics_and_leaves_them(op):
    mean, var = np.array([1.0, 2, 3]), np.array([4.0, 5, 6])
    x, gamma, beta = leaf(X), np.array([1.0, -2, 3]), np.array([0.5, 0, -1])
    y = op(x, gamma, beta, running=(mean, var), training=False, eps=0.5)
    expected = (X - np.array([1, 2, 3])) / np.sqrt(np.array([4, 5, 6]) + 0.5) * gamma + beta
    expected = np.maximum(expected, 0) if op is ops.bn_relu else expected
    np.testing.assert_allclose(y.data, expected, rtol=1e-12, atol=1e-12)
    assert mean.tolist() == [1, 2, 3]
    assert var.tolist() == [4, 5, 6]


@pytest.mark.parametrize("op", [ops.batch_norm, ops.bn_relu])
def test_a_walk_in_evaluation_does_not_see_later_updates(op):
    """Evaluate, train a step on the same layer, then walk back: the statistics are those of the evaluation."""
    gy = spread(RNG, X.shape)
    grads = []
    for later in (False, True):
        x, running = leaf(X), (np.zeros(3), np.ones(3))
        y = op(x, ONE, ZERO, running=running, training=False)
        if later:
            op(Tensor(X * 3), ONE, ZERO, running=running)
        y.backward(gy)
        grads.append(x.grad)
    np.testing.assert_array_equal(*grads)


def test_one_image_is_enough_where_its_map_has_several_places():
    assert ops.batch_norm(Tensor(X[:1]), ONE, ZERO).shape == (1, 3, 5, 3)
    one_value = ops.batch_norm(Tensor(X[:1, :1, :1]), ONE, ZERO, running=(ZERO, ONE), training=False)
    np.testing.assert_allclose(one_value.data, X[:1, :1, :1] / np.sqrt(1 + 1e-5))


ONES = np.ones((20, 10, 10, 3))


def mask(seed=1, layer=2, step=3, p=0.4):
    return ops.dropout(Tensor(ONES), p, rng=Generator(seed, layer, step)).data > 0


def test_a_mask_is_a_function_of_seed_layer_and_step():
    assert np.array_equal(mask(), mask())
    for other in (mask(seed=2), mask(layer=1), mask(step=4)):
        assert 0.3 < (mask() != other).mean() < 0.66  # 2·p·(1 − p) = 0.48 where they are independent


def test_dropout_draws_once_for_each_forward_pass_and_not_in_backward():
    rng, x = Generator(1, 2), leaf(ONES)
    y = ops.dropout(x, 0.4, rng=rng)
    assert rng.state() == {"seed": 1, "layer": 2, "step": 1}
    second = ops.dropout(x, 0.4, rng=rng)
    assert rng.step == 2
    assert not np.array_equal(y.data, second.data)
    y.backward(ONES)
    assert rng.step == 2
    np.testing.assert_array_equal(x.grad, y.data)  # of ones: the first mask, although a second was drawn since


def test_dropout_keeps_the_mean_and_scales_what_it_keeps():
    for p in (0.1, 0.5, 0.8):
        y = ops.dropout(Tensor(ONES), p, rng=Generator(5)).data
        assert set(np.unique(y).tolist()) == {0, 1 / (1 - p)}
        assert abs(y.mean() - 1) < 6 * np.sqrt(p / (1 - p) / y.size)


@pytest.mark.parametrize("p, training, draws", [(0.5, False, 0), (0.0, True, 1)])
def test_dropout_without_effect_is_the_identity(p, training, draws):
    """In evaluation nothing is drawn; with p = 0 a step is a step, so that later masks do not depend on p."""
    rng, x, gy = Generator(1), leaf(X), spread(RNG, X.shape)
    y = ops.dropout(x, p, rng=rng, training=training)
    y.backward(gy)
    np.testing.assert_array_equal(y.data, X)
    np.testing.assert_array_equal(x.grad, gy)
    assert not np.shares_memory(x.grad, gy)
    assert rng.step == draws


def test_equal_maxima_share_the_gradient():
    x = leaf([[1, 3, 3], [2, 2, 2]])
    ops.max(x, axis=1).backward(np.array([6.0, 9.0]))
    assert x.grad.tolist() == [[0, 3, 3], [3, 3, 3]]
    x.grad = None
    ops.max(x).backward()
    assert x.grad.tolist() == [[0, 0.5, 0.5], [0, 0, 0]]


def test_equal_arguments_of_maximum_get_half_each():
    a, b = leaf([1, 2, 3]), leaf([3, 2, 1])
    ops.maximum(a, b).backward(np.array([10.0, 20.0, 30.0]))
    assert a.grad.tolist() == [0, 10, 30]
    assert b.grad.tolist() == [10, 10, 0]


def test_the_first_of_equal_values_wins_a_window():
    x = leaf(np.full((1, 2, 2, 1), -1.0))
    ops.max_pool(x, 2).backward(np.full((1, 1, 1, 1), 5.0))
    assert x.grad.ravel().tolist() == [5, 0, 0, 0]


def test_padding_never_wins_and_never_counts():
    x = Tensor(np.full((1, 2, 2, 1), -3.0))
    assert ops.max_pool(x, 2, pad=1).data.ravel().tolist() == [-3] * 4
    assert ops.avg_pool(x, 2, pad=1).data.ravel().tolist() == [-3] * 4
    assert ops.avg_pool(x, 2, pad=1, count_pad=True).data.ravel().tolist() == [-0.75] * 4


def test_relu_at_zero_has_no_gradient():
    x = leaf([-1, 0, 2])
    ops.relu(x).backward(np.full(3, 7.0))
    assert x.grad.tolist() == [0, 0, 7]


def test_an_element_taken_twice_gets_the_sum():
    x = leaf([1, 2, 3])
    x[np.array([0, 2, 0])].backward(np.array([1.0, 10.0, 100.0]))
    assert x.grad.tolist() == [101, 0, 10]


SCORES = spread(RNG, (5, 4))
LABELS = [3, 0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64])
def test_labels_may_have_any_integer_dtype(dtype):
    outcomes = []
    for labels in (np.array(LABELS, dtype), np.eye(4)[LABELS]):
        x = leaf(SCORES)
        loss = ops.cross_entropy(x, labels, label_smoothing=0.1)
        loss.backward()
        outcomes.append((loss.item(), x.grad))
    assert outcomes[0][0] == pytest.approx(outcomes[1][0], rel=1e-12)
    np.testing.assert_allclose(outcomes[0][1], outcomes[1][1], rtol=0, atol=1e-15)


def test_reductions_of_the_loss():
    labels = np.array(LABELS)
    losses, grads = {}, {}
    for reduction in ("none", "sum", "mean"):
        x = leaf(SCORES)
        loss = ops.cross_entropy(x, labels, reduction=reduction)
        loss.backward(np.ones_like(loss.data))
        losses[reduction], grads[reduction] = loss.data, x.grad
    log_p = SCORES - np.log(np.exp(SCORES).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(losses["none"], -log_p[np.arange(5), labels], rtol=1e-12)
    np.testing.assert_allclose(losses["sum"], losses["none"].sum(), rtol=1e-12)
    np.testing.assert_allclose(losses["mean"], losses["none"].mean(), rtol=1e-12)
    np.testing.assert_allclose(grads["none"], np.exp(log_p) - np.eye(4)[labels], rtol=0, atol=1e-14)
    np.testing.assert_allclose(grads["sum"], grads["none"], rtol=0, atol=1e-15)
    np.testing.assert_allclose(grads["mean"], grads["none"] / 5, rtol=0, atol=1e-15)


def test_the_mean_is_the_default_reduction_and_a_0d_array():
    loss = ops.cross_entropy(leaf(SCORES), np.array(LABELS))
    assert type(loss.data) is np.ndarray
    assert loss.shape == ()
    assert loss.item() == ops.cross_entropy(leaf(SCORES), np.array(LABELS), reduction="mean").item()


def test_huge_scores_overflow_nothing():
    x = leaf([[1000.0, 0.0, -1000.0]])
    loss = ops.cross_entropy(x, np.array([2]))
    loss.backward()
    assert loss.item() == 2000
    assert x.grad.tolist() == [[1, 0, -1]]
    assert ops.softmax(x).data.tolist() == [[1, 0, 0]]


def test_labels_may_be_a_tensor_but_get_no_gradient():
    q = leaf(np.full((5, 4), 0.25))
    grads = []
    for labels in (q.data, q.detach()):
        x = leaf(SCORES)
        ops.cross_entropy(x, labels).backward()
        grads.append(x.grad)
    np.testing.assert_array_equal(*grads)
    with pytest.raises(RuntimeError, match=r"cross_entropy: labels get no gradient; pass labels.detach\(\)"):
        ops.cross_entropy(leaf(SCORES), q).backward()


def test_the_power_0_is_flat_even_at_0():
    x = leaf([0, 2])
    (x**0).backward(np.ones(2))
    assert x.grad.tolist() == [0, 0]


def test_the_numbers_of_lrn_are_those_of_the_paper():
    x = Tensor(np.array([[1.0, 2, 3, 4]]))
    sums = np.array([1 + 4, 1 + 4 + 9, 4 + 9 + 16, 9 + 16])
    expected = x.data / (2 + 0.5 * sums) ** 0.75
    np.testing.assert_allclose(ops.lrn(x, size=3, alpha=0.5, beta=0.75, k=2).data, expected, rtol=1e-12)
    assert np.allclose(ops.lrn(x).data, x.data / (2 + 1e-4 * np.array([14, 30, 30, 29])) ** 0.75, rtol=1e-12)


def test_subsample_keeps_the_first_row_and_column():
    y = ops.subsample(Tensor(X), 2)
    np.testing.assert_array_equal(y.data, X[:, ::2, ::2])


def test_pad_channels_puts_zeros_on_both_sides():
    y = ops.pad_channels(Tensor(X), 1, 2).data
    np.testing.assert_array_equal(y, np.pad(X, ((0, 0), (0, 0), (0, 0), (1, 2))))
