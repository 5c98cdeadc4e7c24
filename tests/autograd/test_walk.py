"""The walk back along the tape: what is added up where, in which buffers, how often, how deep, and on which thread."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref

import pytest

from minicnn import Tensor, no_grad, ops
from minicnn.autograd import differentiable
from tests.device import np


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


def sharing(**arrays):
    """The pairs of names whose arrays share memory."""
    return [(a, b) for a, b in itertools.combinations(arrays, 2) if np.shares_memory(arrays[a], arrays[b])]


def test_a_fan_out_of_four_adds_up():
    x = leaf(1.0, -2.0, 3.0)
    h = (x * 2.0).retain_grad()
    y = h + h * h + h * 5.0 + h[::-1]
    gy = np.array([1.0, 10.0, 100.0])
    y.backward(gy)
    expected = gy + 2 * h.data * gy + 5 * gy + gy[::-1]
    np.testing.assert_allclose(h.grad, expected, rtol=1e-15)
    np.testing.assert_allclose(x.grad, 2 * expected, rtol=1e-15)


FAN_OUTS = {
    "the same argument twice": lambda h: ops.add(h, h),
    "views of gy": lambda h: ops.add(h.reshape(2, 3).reshape(6), ops.add(h, h)),
    "concat": lambda h: ops.concat(h, h, h, h)[6:12],
    "broadcast gradient": lambda h: ops.add(h.sum(), h),
    "owned, then borrowed": lambda h: ops.add(ops.mul(h, 2.0), ops.add(h, ops.mul(h, h))),
    "gy handed on, then added to": lambda h: ops.add(h * 2.0, h + 1.0),
    "gy handed on, last": lambda h: ops.add(h + 1.0, h * 2.0),
    "a view of gy, then added to": lambda h: ops.add(h * 2.0, h.reshape(2, 3).reshape(6)),
    "borrowed, then owned": lambda h: ops.add(ops.add(h, h), ops.add(ops.mul(h, 3.0), h)),
}


@pytest.mark.parametrize("name", FAN_OUTS)
def test_no_gradient_shares_memory_and_gy_is_left_alone(name):
    a, b = leaf(*range(1, 7)), leaf(*range(2, 8))
    h = (a + b).retain_grad()  # hands the one gy to both leaves
    y = FAN_OUTS[name](h).retain_grad()
    gy = np.linspace(-1, 1, 6).copy()  # owns its memory, as the walk's own buffers do
    before = gy.copy()
    y.backward(gy)
    assert np.array_equal(gy, before)
    assert np.array_equal(a.grad, b.grad)
    assert np.array_equal(a.grad, h.grad)
    assert np.array_equal(y.grad, gy)
    arrays = {"gy": gy, "ga": a.grad, "gb": b.grad, "gh": h.grad, "y's gradient": y.grad}
    assert sharing(**arrays, a=a.data, b=b.data, h=h.data, y=y.data) == []
    a.grad += 1  # what an optimiser may do
    assert np.array_equal(b.grad, h.grad)


def test_gradients_of_an_op_that_returns_one_array_twice_are_told_apart():
    @differentiable
    def add(a, b):
        def backward(gy, needs):
            g = 1.0 * gy
            return g, g

        return a + b, backward

    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    add(a, b).backward(np.ones(2))
    (add(a, b) * 2.0).backward(np.ones(2))  # would be added to both, twice, in one buffer
    assert a.grad.tolist() == [3, 3]
    assert b.grad.tolist() == [3, 3]
    assert not np.shares_memory(a.grad, b.grad)


def test_identity_ops_do_not_hand_out_their_input_as_a_gradient():
    x = leaf(1.0, 2.0)
    gy = np.ones(2)
    x.backward(gy)  # a leaf is its own result
    x.backward(gy)
    assert x.grad.tolist() == [2, 2]
    assert gy.tolist() == [1, 1]


def test_the_second_walk_is_an_error_that_names_the_op():
    x = leaf(1.0)
    y = ops.exp(x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="backward: the graph below 'sum' has been walked already"):
        y.backward()
    assert x.grad.tolist() == [np.exp(1.0)]


def test_a_half_walked_graph_is_refused_before_anything_is_added():
    x, other = leaf(1.0), leaf(2.0)
    shared = ops.exp(x)
    shared.sum().backward()
    with pytest.raises(RuntimeError, match="below 'exp' has been walked already"):
        (shared.sum() + other.sum()).backward()
    assert other.grad is None


def test_a_result_of_several_elements_needs_gy():
    with pytest.raises(RuntimeError, match=r"backward: a tensor of shape \(2,\) needs an upstream gradient gy"):
        (leaf(1.0, 2.0) * 2).backward()


def test_one_element_of_any_shape_needs_no_gy():
    x = Tensor(np.full((1, 1), 3.0), requires_grad=True)
    (x * x).backward()
    assert x.grad.tolist() == [[6]]


@pytest.mark.parametrize(
    "gy, given",
    [
        (np.ones(3), r"\(3,\) float64"),
        (np.ones((1, 2)), r"\(1, 2\) float64"),
        (np.ones(()), r"\(\) float64"),
        (np.ones(2, np.float32), r"\(2,\) float32"),
    ],
)
def test_gy_of_another_shape_or_dtype_is_refused(gy, given):
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=rf"upstream gradient gy is {given}, the tensor needs \(2,\) float64"):
        (x * 2).backward(gy)
    assert x.grad is None


def test_gy_must_be_an_array():
    with pytest.raises(TypeError, match="expected a NumPy or CuPy array, got float"):
        leaf(1.0).sum().backward(1.0)


def test_a_constant_has_no_backward():
    for constant in (Tensor(np.ones(())), Tensor(np.ones(2)).sum(), leaf(1.0).detach().sum()):
        with pytest.raises(RuntimeError, match="depends on nothing that requires a gradient"):
            constant.backward()


def test_no_grad_records_nothing_and_nests():
    x = leaf(1.0, 2.0)
    with no_grad():
        with no_grad():
            assert not (x * 2).requires_grad
        y = x * 2  # still off after the inner block
        assert not y.requires_grad
        assert y.node is None
    assert (x * 2).requires_grad
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (x * 2).requires_grad  # on again after an error


def test_what_no_grad_made_is_a_constant_of_a_later_graph():
    x = leaf(3.0)
    with no_grad():
        square = x * x
    (x * square).sum().backward()
    assert x.grad.tolist() == [9]


def test_a_shared_parameter_collects_from_every_use():
    w = leaf(2.0)
    x = Tensor(np.array([3.0]))
    (w * (w * (w * x))).sum().backward()
    assert w.grad.tolist() == [3 * 3 * 2**2]


def test_two_graphs_add_to_the_same_grad_in_place():
    x = leaf(1.0, 2.0)
    (x * 3).sum().backward()
    first = x.grad
    (x * x).sum().backward()
    assert x.grad is first
    assert x.grad.tolist() == [5, 7]


def test_the_order_of_visits_waits_for_every_use():
    """x -> a -> b -> c, and a, b, c are all used by the result: a must come after both others."""
    x = leaf(2.0)
    a = x * x
    b = a * a
    c = b * a
    (a + b + c).sum().backward()  # x² + x⁴ + x⁶
    assert x.grad.tolist() == [2 * 2 + 4 * 8 + 6 * 32]


def chain(x, length):
    for _ in range(length):
        x = -x
    return x


def test_a_chain_of_20000_nodes_is_walked_without_recursion():
    x = leaf(1.0)
    y = chain(x, 20_000)
    y.backward()
    assert x.grad.tolist() == [1]


def test_a_chain_of_20000_nodes_is_freed_without_a_walk():
    x = leaf(1.0)
    y = chain(x, 20_000)
    gone = weakref.ref(y)
    del y
    gc.collect()
    assert gone() is None


@pytest.mark.cpu_only("watches an array through a subclass of NumPy's")
def test_the_walk_frees_activations_at_once_and_without_the_garbage_collector():
    kept = np.full(4, 2.0).view(type("Watched", (np.ndarray,), {}))  # a subclass can be weakly referenced
    x = leaf(1.0, 2.0, 3.0, 4.0)
    y = ops.mul(x, kept).sum()
    activation = weakref.ref(kept)
    gc.disable()
    try:
        del kept
        assert activation() is not None  # the graph holds it
        y.backward()
        assert activation() is None
    finally:
        gc.enable()


def test_results_and_gradients_of_size_one_are_arrays():
    x = Tensor(np.array(2.0, np.float32), requires_grad=True)
    results = {
        "neg": -x,
        "add": x + 1.0,
        "mul": x * x,
        "div": 1.0 / x,
        "pow": x**2,
        "exp": x.exp(),
        "log": x.log(),
        "sqrt": x.sqrt(),
        "maximum": x.maximum(1.0),
        "sum": x.sum(),
        "mean": x.mean(),
        "max": x.max(),
        "reshape": x.reshape(()),
        "loss": ops.cross_entropy(x.reshape(1, 1) * np.ones((1, 3), np.float32), np.array([1])),
        "getitem": x.reshape(1)[0],
    }
    for name, y in results.items():
        assert type(y.data) is np.ndarray, name
        assert y.data.dtype == np.float32, name
        assert y.shape == (), name
        x.grad = None
        y.retain_grad().backward()
        for grad in (x.grad, y.grad):
            assert type(grad) is np.ndarray, name
            assert (grad.shape, grad.dtype) == ((), np.float32), name


def test_two_uses_of_a_0d_tensor_add_up_to_an_array():
    x = Tensor(np.array(2.0), requires_grad=True)
    h = (x * 1.0).retain_grad()
    (h * h + h + h).backward()
    assert type(h.grad) is np.ndarray
    assert type(x.grad) is np.ndarray
    assert x.grad == 6


def test_none_for_an_argument_stops_there():
    @differentiable
    def first(a, b):
        return a + 0 * b, lambda gy, needs: (gy, None)

    a, b = leaf(1.0), leaf(2.0)
    below = b.exp().retain_grad()
    (first(a, below) + b).sum().backward()
    assert a.grad.tolist() == [1]
    assert below.grad is None
    assert b.grad.tolist() == [1]  # from its other use, although nothing came by way of exp


def test_none_for_the_only_use_leaves_grad_as_it_was():
    @differentiable
    def constant(a):
        return 0 * a, lambda gy, needs: (None,)

    a = leaf(1.0)
    constant(a.exp()).sum().backward()
    assert a.grad is None


def test_needs_says_which_gradients_are_wanted():
    seen = []

    @differentiable
    def three(a, b, c):
        def backward(gy, needs):
            seen.append(needs)
            return tuple(gy if need else None for need in needs)

        return a + b + c, backward

    three(leaf(1.0), np.ones(1), Tensor(np.ones(1))).backward()
    three(2.0, leaf(1.0), leaf(1.0)).backward()
    assert seen == [(True, False, False), (False, True, True)]


def test_a_wrong_number_of_gradients_is_an_error():
    @differentiable
    def two(a, b):
        return a + b, lambda gy, needs: (gy,)

    with pytest.raises(ValueError, match="zip"):
        two(leaf(1.0), leaf(2.0)).backward()


def in_thread(f):
    """f's result on a thread of its own."""
    results = []
    thread = threading.Thread(target=lambda: results.append(f()))
    thread.start()
    thread.join(30)
    return results[0]


def test_recording_is_a_matter_of_each_thread():
    x = leaf(1.0)
    with no_grad():
        assert in_thread(lambda: (x * 2).requires_grad)

    inside, checked = threading.Event(), threading.Event()

    def without():
        with no_grad():
            inside.set()
            checked.wait(30)
            return (x * 2).requires_grad

    results = []
    thread = threading.Thread(target=lambda: results.append(without()))
    thread.start()
    inside.wait(30)
    here = (x * 2).requires_grad
    checked.set()
    thread.join(30)
    assert here
    assert results == [False]


def test_threads_with_graphs_of_their_own_do_not_meet():
    xs = [leaf(float(i)) for i in range(4)]

    def work(x):
        for _ in range(200):
            (x * x).sum().backward()

    threads = [threading.Thread(target=work, args=(x,)) for x in xs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [x.grad.tolist() for x in xs] == [[400.0 * i] for i in range(4)]
