"""Looking on: observers, retained gradients, and the search for the op that made the first NaN."""

from __future__ import annotations

import threading

import pytest

from minicnn import Tensor, detect_anomaly, no_grad, observe, ops
from minicnn.autograd import Node
from tests.device import np


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


def test_events_come_in_order_forward_and_backward():
    x, events = leaf(1.0, -2.0), []
    with observe(events.append):
        loss = ops.relu(x * 3.0).sum()
        loss.backward()
    assert [(e.phase, e.name) for e in events] == [
        ("forward", "mul"),
        ("forward", "relu"),
        ("forward", "sum"),
        ("backward", "sum"),
        ("backward", "relu"),
        ("backward", "mul"),
    ]
    forward, backward = events[:3], events[:2:-1]
    assert [e.node for e in forward] == [e.node for e in backward]
    assert all(isinstance(e.node, Node) for e in events)
    assert all(isinstance(e.seconds, float) and 0 < e.seconds < 10 for e in events)


def test_an_event_shows_arguments_and_results():
    x, events = leaf(1.0, -2.0), []
    with observe(events.append):
        y = x * 3.0
        y.backward(np.array([1.0, 5.0]))
    forward, backward = events
    assert forward.inputs[0] is x.data
    assert forward.inputs[1] == 3
    assert forward.outputs[0] is y.data
    assert [a.tolist() for a in backward.inputs] == [[1, 5]]
    assert backward.outputs[0].tolist() == [3, 15]
    assert backward.outputs[1] is None


def test_an_event_shows_the_keywords_that_were_given():
    x, events = Tensor(np.ones((1, 3, 3, 1)), requires_grad=True), []
    with observe(events.append):
        y = ops.max_pool(x, size=2, stride=np.int64(1)).sum()
        y.backward()
    pool, total, *backward = events
    assert pool.options == {"stride": 1} and type(pool.options["stride"]) is int
    assert pool.inputs[1] == 2  # size is an argument, however it is given
    assert total.options == {"axis": None, "keepdims": False}
    assert [event.options for event in backward] == [{}, {}]


def test_seconds_are_those_of_the_op():
    events = []
    a = np.random.default_rng(0).random((300, 300))
    with observe(events.append):
        Tensor(a[:2, :2], requires_grad=True) @ a[:2, :2]
        Tensor(a, requires_grad=True) @ a
    assert events[0].seconds < events[1].seconds


def test_fused_ops_go_by_their_public_name():
    events, one = [], Tensor(np.ones((1, 2, 2, 1)))
    with observe(events.append):
        ops.bn_relu(one, np.ones(1), np.ones(1))
        ops.conv_relu(one, np.ones((1, 1, 1, 1)))
    assert [e.name for e in events] == ["bn_relu", "conv_relu"]


def test_without_recording_there_is_no_node():
    events = []
    with observe(events.append), no_grad():
        leaf(1.0).exp()
    assert [(e.phase, e.name, e.node) for e in events] == [("forward", "exp", None)]


def test_observers_nest_and_end_with_their_block():
    x, outer, inner = leaf(1.0), [], []
    with observe(outer.append):
        with observe(inner.append):
            x.exp()
        x.sqrt()
        with pytest.raises(KeyError), observe(inner.append):
            raise KeyError
        x.log()
    x.sum()
    assert [e.name for e in outer] == ["exp", "sqrt", "log"]
    assert [e.name for e in inner] == ["exp"]


def test_an_observer_sees_its_own_thread_only():
    events = []
    with observe(events.append):
        thread = threading.Thread(target=lambda: leaf(1.0).exp())
        thread.start()
        thread.join(30)
        assert events == []
        leaf(1.0).log()
    assert [e.name for e in events] == ["log"]


def test_retain_grad_keeps_the_gradient_of_an_intermediate_result():
    x = leaf(1.0, 2.0)
    h = x * 3.0
    assert h.retain_grad() is h
    other = x * 5.0
    (h * h + other).backward(np.array([1.0, 10.0]))
    assert h.grad.tolist() == [2 * 3, 2 * 6 * 10]
    assert other.grad is None
    assert x.grad.tolist() == [18 + 5, 360 + 50]


def test_retain_grad_of_a_leaf_and_of_a_constant_changes_nothing():
    x, constant = leaf(1.0), Tensor(np.ones(1))
    (x.retain_grad() * constant.retain_grad()).backward()
    assert x.grad.tolist() == [1]
    assert constant.grad is None


def test_retain_grad_does_not_keep_its_tensor_alive():
    x = leaf(2.0)
    y = (x * x).retain_grad().sum()  # nobody holds the product any more
    y.backward()
    assert x.grad.tolist() == [4]


def test_detect_anomaly_names_the_op_of_the_forward_pass():
    x = leaf(-1.0)
    with (
        np.errstate(invalid="ignore"),
        detect_anomaly(),
        pytest.raises(FloatingPointError, match=r"^forward of 'log' produced NaN or Inf$"),
    ):
        (x * 2.0).log().exp()


def test_detect_anomaly_names_the_op_of_the_backward_pass():
    x = leaf(0.0)
    with np.errstate(divide="ignore", invalid="ignore"), detect_anomaly():
        y = (x.sqrt() * 2.0).sum()
        with pytest.raises(FloatingPointError, match=r"^backward of 'sqrt' produced NaN or Inf$"):
            y.backward()
    assert x.grad is None


def test_detect_anomaly_lets_sound_results_and_integers_pass():
    x = leaf(1.0, 2.0)
    with detect_anomaly():
        x.exp().sum().backward()
        assert Tensor(np.array([1, 2]))[0].item() == 1
    np.testing.assert_allclose(x.grad, np.exp(np.array([1.0, 2.0])))
    with np.errstate(divide="ignore"):
        assert Tensor(np.zeros(1)).log().item() == -np.inf  # outside the block nobody looks
